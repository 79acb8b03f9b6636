// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch_plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "lib/base/profile.h"

namespace stmoe {
namespace {

// Counts each expert's entries into first_row[e + 1], checking that no slot is used twice.
void count_entries(std::span<int32_t> first_row, std::span<const int32_t> expert,
                   std::span<const int32_t> slot, int64_t num_slots) {
  const int64_t num_experts = static_cast<int64_t>(first_row.size()) - 1;
  std::vector<int32_t> owner(static_cast<size_t>(num_experts * num_slots), -1);
  for (size_t i = 0; i < expert.size(); ++i) {
    if (expert[i] < 0 || slot[i] < 0) continue;
    STMOE_CHECK(expert[i] < num_experts && slot[i] < num_slots,
                "plan_dispatch: expert {} slot {} of {} experts with {} slots", expert[i], slot[i],
                num_experts, num_slots);
    int32_t& used_by = owner[static_cast<size_t>(expert[i] * num_slots + slot[i])];
    STMOE_CHECK(used_by < 0, "plan_dispatch: expert {} slot {} is used by entries {} and {}",
                expert[i], slot[i], used_by, i);
    used_by = static_cast<int32_t>(i);
    ++first_row[static_cast<size_t>(expert[i]) + 1];
  }
}

void plan_compact(const DispatchPlan& plan, std::span<const int32_t> expert,
                  std::span<const int32_t> slot) {
  auto row = plan.row_NK.span<int32_t>(), entry = plan.entry_R.span<int32_t>();
  auto first_row = plan.first_row_E1.span<int32_t>();
  std::partial_sum(first_row.begin(), first_row.end(), first_row.begin());
  std::vector<int32_t> next(first_row.begin(), first_row.end());
  for (size_t i = 0; i < expert.size(); ++i) {
    if (expert[i] < 0 || slot[i] < 0) continue;
    row[i] = next[static_cast<size_t>(expert[i])]++;
    entry[static_cast<size_t>(row[i])] = static_cast<int32_t>(i);
  }
}

void plan_padded(const DispatchPlan& plan, std::span<const int32_t> expert,
                 std::span<const int32_t> slot) {
  const auto rows = static_cast<int32_t>(plan.ranges.rows_per_expert);
  auto row = plan.row_NK.span<int32_t>(), entry = plan.entry_R.span<int32_t>();
  auto first_row = plan.first_row_E1.span<int32_t>();
  for (size_t e = 0; e < first_row.size(); ++e) first_row[e] = static_cast<int32_t>(e) * rows;
  for (size_t i = 0; i < expert.size(); ++i) {
    if (expert[i] < 0 || slot[i] < 0) continue;
    row[i] = expert[i] * rows + slot[i];
    entry[static_cast<size_t>(row[i])] = static_cast<int32_t>(i);
  }
}

void plan_cpu(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK,
              int64_t num_slots) {
  const auto expert = expert_NK.span<int32_t>(), slot = slot_NK.span<int32_t>();
  auto first_row = plan.first_row_E1.span<int32_t>();
  std::ranges::fill(first_row, 0);
  std::ranges::fill(plan.row_NK.span<int32_t>(), -1);
  std::ranges::fill(plan.entry_R.span<int32_t>(), -1);
  count_entries(first_row, expert, slot, num_slots);
  if (plan.ranges.rows_per_expert > 0)
    plan_padded(plan, expert, slot);
  else
    plan_compact(plan, expert, slot);
}

STMOE_REGISTER_KERNELS(PlanDispatchKernels, cpu, {plan_cpu})

}  // namespace

int64_t rows_per_expert(Device device, int64_t num_entries, int64_t num_experts,
                        int64_t num_slots) {
  if (layout_device(device) == Device::cpu) return 0;
  // What so few rows cost is less than what waiting for the device does.
  constexpr int64_t kFewRows = 8192;
  const int64_t multiple = num_slots > 512 ? 128 : 64;
  const int64_t rows = std::max<int64_t>(1, (num_slots + multiple - 1) / multiple) * multiple;
  return rows * num_experts <= std::max(kFewRows, 4 * num_entries) ? rows : 0;
}

DispatchPlan plan_dispatch(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                           int64_t num_slots, std::optional<int64_t> rows) {
  OpScope scope("plan_dispatch", OpScope::Pass::forward);
  STMOE_CHECK(expert_NK.rank() == 2 && expert_NK.shape() == slot_NK.shape(),
              "plan_dispatch: choices {} and slots {}", expert_NK.shape().text(),
              slot_NK.shape().text());
  const Device device = expert_NK.device();
  DispatchPlan plan;
  const int64_t padded =
      rows.value_or(rows_per_expert(device, expert_NK.numel(), num_experts, num_slots));
  STMOE_CHECK(num_experts >= 1 && num_slots >= 0 && expert_NK.numel() <= INT32_MAX &&
                  num_experts * std::max(padded, num_slots) <= INT32_MAX &&
                  (padded == 0 || padded >= num_slots),
              "plan_dispatch: {} experts of {} slots in {} rows", num_experts, num_slots, padded);
  const int64_t num_rows =
      padded > 0 ? num_experts * padded : std::min(expert_NK.numel(), num_experts * num_slots);
  plan.row_NK = Tensor::empty(expert_NK.shape(), DType::i32, device);
  plan.entry_R = Tensor::empty({num_rows}, DType::i32, device);
  plan.first_row_E1 = Tensor::empty({num_experts + 1}, DType::i32, device);
  plan.ranges.rows_per_expert = padded;
  kernels<PlanDispatchKernels>(device).plan(plan, expert_NK.contiguous(), slot_NK.contiguous(),
                                            num_slots);
  plan.ranges.first_row_E1 = padded > 0 ? plan.first_row_E1 : plan.first_row_E1.on(Device::cpu);
  return plan;
}

}  // namespace stmoe
