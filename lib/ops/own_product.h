// SPDX-License-Identifier: Apache-2.0
// A product of one tile by our own kernels (cpu/tile_kernel.h): f64, and whatever the library has
// no fast kernel for.
#pragma once

#include "lib/ops/product.h"

namespace stmoe {

struct OwnProductKernels {
  static constexpr const char* kOp = "own_product";
  void (*multiply)(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate);
};

// C (+)= A B of single matrices on the calling thread, under the rules of product().
void own_product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate);

}  // namespace stmoe
