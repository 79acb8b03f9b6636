// SPDX-License-Identifier: Apache-2.0
// Where tokens go and where expert rows come from: a partial permutation stored in both directions,
// so that dispatch, combine and both gradients are gathers, without one-hot products and without
// atomics. An entry is a (token, choice) pair, numbered token * K + choice. Rows lie one expert
// after another, in one of two layouts:
//   compact  rows hold entries only, each expert's in the order of the entries: experts take as
//            many rows as they have tokens, and an overfull or empty expert costs no arithmetic
//            elsewhere. Where an expert begins is known when the tokens are routed.
//   padded   every expert owns the same number of rows, an entry's row is its slot: sizes are known
//            beforehand, so that a GPU needs not tell the host anything (docs/design/routing.md).
//            Rows without an entry are padding, no capacity: what is dropped does not change.
#pragma once

#include <optional>

#include "lib/tensor/tensor.h"

namespace stmoe {

// The rows of each expert, what products over them need.
struct ExpertRanges {
  // i32 [E + 1]: expert e has rows [first[e], first[e + 1]). Read by the host unless padded.
  Tensor first_row_E1;
  int64_t rows_per_expert = 0;  // padded: first[e] = e * rows_per_expert; 0: compact
};

struct DispatchPlan {
  Tensor row_NK;        // i32, the row of each entry, -1: none (dropped, or no choice)
  Tensor entry_R;       // i32, the entry of each row; -1: unfilled, compact: those at the end
  Tensor first_row_E1;  // i32 [E + 1]: expert e has rows [first[e], first[e + 1])
  // Of the products; compact on a device: first_row_E1 copied to the host, for which plan_dispatch
  // waits, so that such a step cannot be a CUDA graph.
  ExpertRanges ranges;

  int64_t num_experts() const { return first_row_E1.numel() - 1; }
  int64_t num_rows() const { return entry_R.numel(); }
};

struct PlanDispatchKernels {
  static constexpr const char* kOp = "plan_dispatch";
  // Fills row_NK, entry_R and first_row_E1. Slots of an expert are below num_slots.
  void (*plan)(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK,
               int64_t num_slots);
};

// The layout for a device: 0, compact, on a CPU. On a GPU padded, num_slots rounded up to what
// matrix products like; but where there would be many more rows than entries (a router that drops
// nothing gives every expert as many slots as there are tokens) compact as well.
int64_t rows_per_expert(Device device, int64_t num_entries, int64_t num_experts, int64_t num_slots);

// expert_NK and slot_NK i32 [N, K]; a pair with either of them -1 has no row. Compact, there are as
// many rows as can be filled: the smaller of N K and num_experts * num_slots. Throws BugError when
// an index is out of range or a slot is used twice (a CPU's kernel only). `rows` as
// ExpertRanges::rows_per_expert, at least num_slots if not 0; by default the device's.
DispatchPlan plan_dispatch(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                           int64_t num_slots, std::optional<int64_t> rows = std::nullopt);

}  // namespace stmoe
