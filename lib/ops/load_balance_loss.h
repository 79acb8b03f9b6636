// SPDX-License-Identifier: Apache-2.0
// The load-balance loss of Fedus et al. 2021, equations 4-6, per group of tokens as in flaxformer's
// _load_balancing_loss:
//   loss = E * mean_g sum_e f[g,e] P[g,e]
// f[g,e]: entries of the group's tokens that chose e, over the tokens of the group; P[g,e]: mean of
// p over them. With k distinct choices a token counts once for each, so perfect balance gives k. f
// is a count: the gradient goes through P only.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct LoadBalanceLossKernels {
  static constexpr const char* kOp = "load_balance_loss";
  // share_GE: f, kept for the backward pass.
  void (*forward)(const Tensor& loss, const Tensor& share_GE, const Tensor& p_NE,
                  const Tensor& expert_NK, const Tensor& mask_N);
  void (*backward)(const Tensor& dp_NE, const Tensor& dloss, const Tensor& share_GE,
                   const Tensor& mask_N);
};

// p_NE f32 or f64; expert_NK i32, -1 for no choice; tokens are group-major, num_groups divides
// them. Tokens where mask_N (i32, may be undefined) is 0 add nothing to f and P but stay in both
// denominators. One element of p's type.
Var load_balance_loss(const Var& p_NE, const Tensor& expert_NK, int64_t num_groups,
                      const Tensor& mask_N = Tensor());

}  // namespace stmoe
