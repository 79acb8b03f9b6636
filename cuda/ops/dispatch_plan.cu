// SPDX-License-Identifier: Apache-2.0
// Padded rows: an entry's slot is its row, so one scatter. Compact rows: ranks by expert in the
// order of the entries (expert_ranks.h).
#include "cuda/device/expert_ranks.h"
#include "lib/ops/dispatch_plan.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// A thread for each expert.
STMOE_KERNEL fill_first_rows(int32_t* first_row, int64_t experts, int64_t rows_per_expert) {
  const int64_t e = block_index() * kThreads + thread_index();
  if (e <= experts) first_row[e] = static_cast<int32_t>(e * rows_per_expert);
}

// A thread for each entry: reads 8 bytes, writes 8, of which 4 anywhere. Slots differ, so no two
// threads write the same row.
STMOE_KERNEL place_padded(int32_t* row_NK, int32_t* entry_R, const int32_t* expert_NK,
                          const int32_t* slot_NK, int64_t entries, int64_t rows_per_expert) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < entries) {
    const int64_t expert = expert_NK[i], slot = slot_NK[i];
    const bool has_row = expert >= 0 && slot >= 0;
    const int64_t row = expert * rows_per_expert + slot;
    row_NK[i] = has_row ? static_cast<int32_t>(row) : -1;
    if (has_row) entry_R[row] = static_cast<int32_t>(i);
  }
}

// All entries with a place as one group.
struct PlacedEntries {
  const int32_t *expert_NK, *slot_NK, *first_row_E1;
  int32_t *row_NK, *entry_R;
};

STMOE_DEVICE int expert_at(const PlacedEntries& in, int64_t, int64_t i) {
  return in.slot_NK[i] < 0 ? -1 : in.expert_NK[i];
}

STMOE_DEVICE void place_at(const PlacedEntries& in, int64_t, int64_t i, int expert, int64_t place) {
  const int64_t row = expert < 0 ? -1 : in.first_row_E1[expert] + place;
  in.row_NK[i] = static_cast<int32_t>(row);
  if (row >= 0) in.entry_R[row] = static_cast<int32_t>(i);
}

void plan(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK, int64_t) {
  const int64_t entries = expert_NK.numel(), experts = plan.num_experts();
  const int64_t rows = plan.ranges.rows_per_expert;
  int32_t *row = plan.row_NK.data<int32_t>(), *entry = plan.entry_R.data<int32_t>();
  int32_t* first_row = plan.first_row_E1.data<int32_t>();
  plan.entry_R.fill(-1);
  if (rows > 0) {
    launch(fill_first_rows, blocks_for(experts + 1, kThreads), kThreads, 0, first_row, experts,
           rows);
    launch(place_padded, blocks_for(entries, kThreads), kThreads, 0, row, entry,
           expert_NK.data<int32_t>(), slot_NK.data<int32_t>(), entries, rows);
    return;
  }
  RankOptions options;
  options.total_GE = Tensor::empty({experts}, DType::i32, expert_NK.device());
  options.first_GE1 = plan.first_row_E1;
  const PlacedEntries placed = {expert_NK.data<int32_t>(), slot_NK.data<int32_t>(), first_row, row,
                                entry};
  rank_entries(placed, 1, entries, experts, expert_NK.device(), options);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(PlanDispatchKernels, STMOE_GPU, {gpu::plan})

}  // namespace stmoe
