// SPDX-License-Identifier: Apache-2.0
// Router probabilities: p = softmax(logits) over the last dimension and lse = log sum_e
// exp(logits_e), which the router z-loss needs (Zoph et al. 2022, equation 5). One pass over each
// row; the largest logit is taken off first. Gradient: dlogits = p * (dp - sum_e dp_e p_e) + p *
// dlse.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct SoftmaxWithLseKernels {
  static constexpr const char* kOp = "softmax_with_lse";
  void (*forward)(const Tensor& p_NE, const Tensor& lse_N, const Tensor& logits_NE);
  // dp_NE or dlse_N may be undefined: zero.
  void (*backward)(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& dlse_N,
                   const Tensor& p_NE);
};

struct SoftmaxWithLse {
  Var p_NE;
  Var lse_N;
};

// logits_NE f32 or f64, at least one column; the results have its type.
SoftmaxWithLse softmax_with_lse(const Var& logits_NE);

}  // namespace stmoe
