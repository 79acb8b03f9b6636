// SPDX-License-Identifier: Apache-2.0
// The k largest values of each row, as integers: which experts a token chooses. Equal values: the
// lower column first, as jax.lax.top_k (flaxformer/architectures/moe/routing.py) and argmax. No
// gradient.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct TopKKernels {
  static constexpr const char* kOp = "top_k";
  void (*choose)(const Tensor& index_NK, const Tensor& values_NE, const Tensor& mask_N);
};

// values_NE f32 or f64, 1 <= k <= E. Returns i32 [N, k] in order of falling values. Where mask_N
// (i32, may be undefined) is 0, every entry is -1. A NaN is never chosen before a number; a row of
// NaNs chooses columns 0, 1, ...
Tensor top_k(const Tensor& values_NE, int64_t k, const Tensor& mask_N = Tensor());

}  // namespace stmoe
