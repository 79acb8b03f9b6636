// SPDX-License-Identifier: Apache-2.0
// What the vendor's library cannot read, or what is to be multiplied for its time alone.
#pragma once

#include "lib/ops/product.h"

namespace stmoe::gpu {

// A contiguous copy [batch, rows, cols] of matrices of any strides.
Tensor packed(const MatrixView& from);

// Numbers from [-1, 1), any of a sequence: never zeros, on which products run faster.
void fill_random(const Tensor& to);

}  // namespace stmoe::gpu
