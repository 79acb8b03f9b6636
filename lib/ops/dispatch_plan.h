// SPDX-License-Identifier: Apache-2.0
// Where tokens go and where expert rows come from: a partial permutation stored in both directions,
// so that dispatch, combine and both gradients are gathers, without one-hot products and without
// atomics. An entry is a (token, choice) pair, numbered token * K + choice. Rows hold entries only,
// one expert after another, each expert's in the order of the entries: experts take as many rows as
// they have tokens, and an overfull or empty expert costs no arithmetic elsewhere.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct DispatchPlan {
  Tensor row_NK;        // i32, the row of each entry, -1: none (dropped, or no choice)
  Tensor entry_R;       // i32, the entry of each row; -1: the unfilled rows at the end
  Tensor first_row_E1;  // i32 [E + 1]: expert e has rows [first[e], first[e + 1])

  int64_t num_experts() const { return first_row_E1.numel() - 1; }
  int64_t num_rows() const { return entry_R.numel(); }
};

struct PlanDispatchKernels {
  static constexpr const char* kOp = "plan_dispatch";
  // Slots of an expert are below num_slots.
  void (*plan)(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK,
               int64_t num_slots);
};

// expert_NK and slot_NK i32 [N, K]; a pair with either of them -1 has no row. There are as many
// rows as can be filled: the smaller of N K and num_experts * num_slots. Throws BugError when an
// index is out of range or a slot is used twice.
DispatchPlan plan_dispatch(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                           int64_t num_slots);

}  // namespace stmoe
