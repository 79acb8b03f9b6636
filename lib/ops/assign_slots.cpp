// SPDX-License-Identifier: Apache-2.0
// One pass over the entries of a group with a counter per expert; groups in parallel.
#include "lib/ops/assign_slots.h"

#include <vector>

#include "lib/base/profile.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

void assign_group(int64_t group, const Tensor& slot_NK, const Tensor& expert_NK,
                  const SlotOptions& options) {
  const int64_t k = expert_NK.dim(1), tokens = expert_NK.dim(0) / options.num_groups;
  const int64_t first = group * tokens;
  const int32_t* order = options.order_N.defined() ? options.order_N.data<int32_t>() : nullptr;
  std::vector<int64_t> waiting(static_cast<size_t>(options.num_experts));
  for (int64_t choice = 0; choice < k; ++choice)
    for (int64_t i = first; i < first + tokens; ++i) {
      const int64_t token = order ? order[i] : i;
      STMOE_CHECK(token >= first && token < first + tokens,
                  "assign_slots: order names token {} in group {} of tokens [{}, {})", token, group,
                  first, first + tokens);
      const int64_t entry = token * k + choice;
      const int32_t expert = expert_NK.data<int32_t>()[entry];
      STMOE_CHECK(expert >= -1 && expert < options.num_experts,
                  "assign_slots: expert {} of {} at token {}", expert, options.num_experts, token);
      int64_t position = options.capacity;
      if (expert >= 0) position = waiting[static_cast<size_t>(expert)]++;
      slot_NK.data<int32_t>()[entry] =
          position < options.capacity ? static_cast<int32_t>(group * options.capacity + position)
                                      : -1;
    }
}

void assign_cpu(const Tensor& slot_NK, const Tensor& expert_NK, const SlotOptions& options) {
  parallel_for(options.num_groups, 1,
               [&](int64_t group, int64_t) { assign_group(group, slot_NK, expert_NK, options); });
}

STMOE_REGISTER_KERNELS(AssignSlotsKernels, cpu, {assign_cpu})

}  // namespace

Tensor assign_slots(const Tensor& expert_NK, const SlotOptions& options) {
  OpScope scope("assign_slots", OpScope::Pass::forward);
  STMOE_CHECK(expert_NK.rank() == 2 && expert_NK.dtype() == DType::i32,
              "assign_slots: choices are {} {}, expected i32 [tokens, choices]",
              name_of(expert_NK.dtype()), expert_NK.shape().text());
  STMOE_CHECK(options.num_groups >= 1 && expert_NK.dim(0) % options.num_groups == 0,
              "assign_slots: {} groups of {} tokens", options.num_groups, expert_NK.dim(0));
  STMOE_CHECK(options.num_experts >= 1 && options.capacity >= 0 &&
                  options.num_experts * options.num_groups * options.capacity <= INT32_MAX,
              "assign_slots: {} experts, {} groups, capacity {}", options.num_experts,
              options.num_groups, options.capacity);
  STMOE_CHECK(!options.order_N.defined() ||
                  (options.order_N.numel() == expert_NK.dim(0) &&
                   options.order_N.dtype() == DType::i32 && options.order_N.is_contiguous()),
              "assign_slots: order {} for {} tokens", options.order_N.shape().text(),
              expert_NK.dim(0));
  const Tensor slot_NK = Tensor::empty(expert_NK.shape(), DType::i32, expert_NK.device());
  kernels<AssignSlotsKernels>(expert_NK.device()).assign(slot_NK, expert_NK.contiguous(), options);
  return slot_NK;
}

}  // namespace stmoe
