// SPDX-License-Identifier: Apache-2.0
// Every expert takes every token that is not masked; a token's place is its number. And where some
// experts took a token: one over their number.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

// i32 [N, E] each: the column, and the row; -1 in rows where mask_N is 0.
struct AllChosen {
  Tensor expert_NE, slot_NE;
};

struct ChooseAllKernels {
  static constexpr const char* kOp = "choose_all";
  void (*choose)(const AllChosen& chosen, const Tensor& mask_N);
  void (*invert)(const Tensor& inverse_NE, const Tensor& expert_NE);
};

// mask_N i32 [num_tokens], may be undefined.
AllChosen choose_all(int64_t num_tokens, int64_t num_experts, Device device,
                     const Tensor& mask_N = Tensor());

// expert_NE i32, -1: did not take it. Returns [N, E] in `dtype` (f32 or f64): everywhere in a
// token's row 1 / number of experts that took it, or 1 when none did. No gradient.
Tensor inverse_counts(const Tensor& expert_NE, DType dtype);

}  // namespace stmoe
