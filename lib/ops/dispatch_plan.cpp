// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch_plan.h"

#include <algorithm>

#include "lib/base/profile.h"

namespace stmoe {
namespace {

void plan_cpu(const DispatchPlan& plan, const Tensor& expert_NK, const Tensor& slot_NK) {
  const auto expert = expert_NK.span<int32_t>(), slot = slot_NK.span<int32_t>();
  auto row = plan.row_NK.span<int32_t>(), entry = plan.entry_R.span<int32_t>();
  std::fill(entry.begin(), entry.end(), -1);
  for (size_t i = 0; i < expert.size(); ++i) {
    row[i] = -1;
    if (expert[i] < 0 || slot[i] < 0) continue;
    STMOE_CHECK(expert[i] < plan.num_experts && slot[i] < plan.rows_per_expert,
                "plan_dispatch: expert {} slot {} of {} experts with {} rows", expert[i], slot[i],
                plan.num_experts, plan.rows_per_expert);
    row[i] = static_cast<int32_t>(expert[i] * plan.rows_per_expert + slot[i]);
    int32_t& owner = entry[static_cast<size_t>(row[i])];
    STMOE_CHECK(owner < 0, "plan_dispatch: expert {} slot {} is used by entries {} and {}",
                expert[i], slot[i], owner, i);
    owner = static_cast<int32_t>(i);
  }
}

STMOE_REGISTER_KERNELS(PlanDispatchKernels, cpu, {plan_cpu})

}  // namespace

DispatchPlan plan_dispatch(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                           int64_t rows_per_expert) {
  OpScope scope("plan_dispatch", OpScope::Pass::forward);
  STMOE_CHECK(expert_NK.rank() == 2 && expert_NK.shape() == slot_NK.shape(),
              "plan_dispatch: choices {} and slots {}", expert_NK.shape().text(),
              slot_NK.shape().text());
  STMOE_CHECK(num_experts >= 1 && rows_per_expert >= 0 && expert_NK.numel() <= INT32_MAX &&
                  num_experts * rows_per_expert <= INT32_MAX,
              "plan_dispatch: {} experts of {} rows", num_experts, rows_per_expert);
  const Device device = expert_NK.device();
  DispatchPlan plan;
  plan.num_experts = num_experts;
  plan.rows_per_expert = rows_per_expert;
  plan.row_NK = Tensor::empty(expert_NK.shape(), DType::i32, device);
  plan.entry_R = Tensor::empty({num_experts * rows_per_expert}, DType::i32, device);
  kernels<PlanDispatchKernels>(device).plan(plan, expert_NK.contiguous(), slot_NK.contiguous());
  return plan;
}

}  // namespace stmoe
