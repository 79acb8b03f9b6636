// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/expert_ranks.h"
#include "cuda/device/vector.h"
#include "lib/ops/assign_slots.h"

namespace stmoe::gpu {
namespace {

// The entries of a group choice-major: all first choices before any second one. Reads 4 bytes an
// entry twice (8 with an order), writes 4.
struct ChosenEntries {
  const int32_t* expert_NK;
  const int32_t* order_N;  // or null
  int32_t* slot_NK;
  int64_t tokens, k, capacity;
};

STMOE_DEVICE int64_t entry_at(const ChosenEntries& in, int64_t group, int64_t i) {
  const int64_t choice = quotient(i, in.tokens);
  const int64_t at = group * in.tokens + i - choice * in.tokens;
  return (in.order_N ? in.order_N[at] : at) * in.k + choice;
}

STMOE_DEVICE int expert_at(const ChosenEntries& in, int64_t group, int64_t i) {
  return in.expert_NK[entry_at(in, group, i)];
}

STMOE_DEVICE void place_at(const ChosenEntries& in, int64_t group, int64_t i, int expert,
                           int64_t place) {
  const bool is_kept = expert >= 0 && place < in.capacity;
  in.slot_NK[entry_at(in, group, i)] =
      is_kept ? static_cast<int32_t>(group * in.capacity + place) : -1;
}

void assign(const Tensor& slot_NK, const Tensor& expert_NK, const SlotOptions& options) {
  const int64_t tokens = expert_NK.dim(0) / options.num_groups, k = expert_NK.dim(1);
  const ChosenEntries entries = {
      expert_NK.data<int32_t>(),
      options.order_N.defined() ? options.order_N.data<int32_t>() : nullptr,
      slot_NK.data<int32_t>(),
      tokens,
      k,
      options.capacity};
  rank_entries(entries, options.num_groups, tokens * k, options.num_experts, slot_NK.device());
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AssignSlotsKernels, STMOE_GPU, {gpu::assign})

}  // namespace stmoe
