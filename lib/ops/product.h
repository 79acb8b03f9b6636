// SPDX-License-Identifier: Apache-2.0
// The one place where matrices are multiplied (internal to the ops): C (+)= A B for single
// matrices, batches of them and lists. f64 with f64 sums; f32 and bf16 with f32 sums, f32 or bf16
// results. An element of C has the same bits with any number of threads and whatever other rows and
// columns there are.
#pragma once

#include <span>

#include "lib/base/profile.h"
#include "lib/tensor/tensor.h"

namespace stmoe {

// A matrix, or `batch` of them, in memory that somebody else owns. Strides in elements.
struct MatrixView {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  int64_t batch = 1, rows = 0, cols = 0;
  int64_t batch_stride = 0, row_stride = 0, col_stride = 1;
  Device device = Device::cpu;

  MatrixView transposed() const;
  // Rows [row, row + num_rows) and columns [col, col + num_cols) of matrix `index` of the batch.
  MatrixView part(int64_t index, int64_t row, int64_t num_rows, int64_t col,
                  int64_t num_cols) const;
};

// A tensor [rows, cols] or [batch, rows, cols], any strides.
MatrixView matrix_view(const Tensor& tensor);

struct Product {
  MatrixView c, a, b;
};

struct ProductKernels {
  static constexpr const char* kOp = "product";
  void (*multiply)(std::span<const Product> list, bool accumulate);
};

// C = A B, or C += A B (f32 and f64 only). C is [m, n] with contiguous rows, A [m, k], B [k, n]; A
// and B have one type and any strides. C has the type of A, or f32 when A is bf16. Empty matrices
// are allowed: with k = 0 the product is zero.
void product(const MatrixView& c, const MatrixView& a, const MatrixView& b,
             bool accumulate = false);

// Several such products of different sizes, whose results do not overlap, shared out to the threads
// as one piece of work: the experts of a layer.
void products(std::span<const Product> list, bool accumulate = false);

// For the profile: a function that multiplies in another way opens a ProductScope with this.
ProductType product_type(DType dtype);
ProductShape profile_shape(const Product& product, bool accumulate);

}  // namespace stmoe
