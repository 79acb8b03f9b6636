// SPDX-License-Identifier: Apache-2.0
// Places in the experts' buffers for choices that tokens made, with a capacity per expert and group
// (Fedus et al. 2021, section 2.2; order as flaxformer's tokens-choose routers). Within a group the
// entries are taken choice-major: the first choices of all tokens, then the second choices, ... An
// entry's position is the number of earlier entries of the group that name the same expert, those
// beyond the capacity included; it has no place when position >= capacity. Integers only.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct SlotOptions {
  int64_t num_experts = 0, num_groups = 1, capacity = 0;
  // Optional i32 [N]: order_N[g * T + i] is the token of group g that is taken i-th (a permutation
  // within each group), as batch-prioritised routing needs. Undefined: token order.
  Tensor order_N;
};

struct AssignSlotsKernels {
  static constexpr const char* kOp = "assign_slots";
  void (*assign)(const Tensor& slot_NK, const Tensor& expert_NK, const SlotOptions& options);
};

// expert_NK i32 [N, K], -1 for no choice, which takes no place; tokens are group-major. Returns i32
// [N, K]: the row group * capacity + position among the expert's num_groups * capacity rows, or -1
// when dropped.
Tensor assign_slots(const Tensor& expert_NK, const SlotOptions& options);

}  // namespace stmoe
