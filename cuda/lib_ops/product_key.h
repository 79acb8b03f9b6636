// SPDX-License-Identifier: Apache-2.0
// A product as cuBLASLt is asked for it: everything that the choice of an algorithm hangs on, and
// nothing else. Products with the same key share a plan, and a line of the file of algorithms.
#pragma once

#include <compare>
#include <optional>
#include <string>

#include "lib/ops/product.h"

namespace stmoe::gpu {

// How a matrix lies in memory: its rows, or with is_transposed its columns, are contiguous and
// `leading` elements apart.
struct OperandKey {
  bool is_transposed = false;
  int64_t leading = 0, batch_stride = 0;  // in elements; 0 for a single matrix
  int alignment = 0;                      // of every matrix of the batch: 256, 16, 8, 4 or 2 bytes
  auto operator<=>(const OperandKey&) const = default;
};

// C [m, n] (+)= A [m, k] B [k, n], `batch` times.
struct ProductKey {
  DType operands = DType::f32, result = DType::f32;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  OperandKey a, b, c;
  bool accumulates = false;
  auto operator<=>(const ProductKey&) const = default;

  // "bf16>f32 4096x768x3072 batch 8 A N ld 3072 ... add": one line, unique.
  std::string text() const;
  double flops() const;
};

// None when neither its rows nor its columns are contiguous, or when they overlap: it must be
// copied first.
std::optional<OperandKey> operand_key(const MatrixView& view);

// Both operands must have an operand_key.
ProductKey product_key(const Product& product, bool accumulate);

}  // namespace stmoe::gpu
