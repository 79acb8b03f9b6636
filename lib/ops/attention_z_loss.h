// SPDX-License-Identifier: Apache-2.0
// The z-loss of Zoph et al. 2022, equation 5, on attention scores: the mean of lse^2 over the
// (query, head) pairs that see a key, with lse = log sum_k exp(score). The lse of the others is
// minus infinity, as attention_with_lse gives it.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct AttentionZLossKernels {
  static constexpr const char* kOp = "attention_z_loss";
  // Also counts the pairs: num_pairs i64 [1].
  void (*forward)(const Tensor& loss, const Tensor& num_pairs, const Tensor& lse_BHQ);
  void (*backward)(const Tensor& dlse_BHQ, const Tensor& dloss, const Tensor& lse_BHQ,
                   const Tensor& num_pairs);
};

// lse_BHQ f32 or f64; one element of its type, 0 when no query sees a key.
Var attention_z_loss(const Var& lse_BHQ);

}  // namespace stmoe
