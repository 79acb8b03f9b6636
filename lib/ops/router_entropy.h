// SPDX-License-Identifier: Apache-2.0
// How undecided a router is: the mean over tokens of -sum_e p_e ln p_e = lse - sum_e p_e logit_e,
// in nats. A number for logs, without gradient.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct RouterEntropyKernels {
  static constexpr const char* kOp = "router_entropy";
  void (*mean)(const Tensor& entropy, const Tensor& p_NE, const Tensor& logits_NE,
               const Tensor& lse_N, const Tensor& mask_N);
};

// f32 or f64, as softmax_with_lse returns them. Tokens where mask_N (i32, may be undefined) is 0
// are left out; 0 when none is left. One element of f64, on the device of p.
Tensor router_entropy(const Tensor& p_NE, const Tensor& logits_NE, const Tensor& lse_N,
                      const Tensor& mask_N = Tensor());

}  // namespace stmoe
