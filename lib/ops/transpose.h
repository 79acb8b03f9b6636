// SPDX-License-Identifier: Apache-2.0
// Transposition of a large matrix in registers, on all threads (internal to product.cpp).
#pragma once

#include "lib/ops/product.h"

namespace stmoe {

struct TransposeKernels {
  static constexpr const char* kOp = "copy_transposed";
  void (*copy)(const MatrixView& out, const MatrixView& in);
};

// out = in as a matrix with contiguous rows; f32 or bf16, the same sizes. `in` has contiguous
// columns (row_stride 1).
void copy_transposed(const MatrixView& out, const MatrixView& in);

}  // namespace stmoe
