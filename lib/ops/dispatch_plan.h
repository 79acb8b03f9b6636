// SPDX-License-Identifier: Apache-2.0
// Where tokens go and where expert rows come from: a partial permutation stored in both directions,
// so that dispatch, combine and both gradients are gathers, without one-hot products and without
// atomics. An entry is a (token, choice) pair, numbered token * K + choice; a row is expert *
// rows_per_expert + slot.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct DispatchPlan {
  Tensor row_NK;   // i32, the row of each entry, -1: none (dropped, or no choice)
  Tensor entry_R;  // i32 [num_experts * rows_per_expert], the entry of each row, -1: unfilled
  int64_t num_experts = 0, rows_per_expert = 0;
};

struct PlanDispatchKernels {
  static constexpr const char* kOp = "plan_dispatch";
  void (*plan)(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK);
};

// expert_NK and slot_NK i32 [N, K]; a pair with either of them -1 has no row. Throws BugError when
// an index is out of range or a slot is used twice.
DispatchPlan plan_dispatch(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                           int64_t rows_per_expert);

}  // namespace stmoe
