// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/routing_counts.h"

#include "lib/base/profile.h"

namespace stmoe {
namespace {

void count_cpu(const Tensor& counts, const Tensor& expert_NK, const Tensor& slot_NK,
               const RoutedTokens& tokens) {
  const int64_t num_experts = counts.numel() - kNumRoutingCounts, k = expert_NK.dim(1);
  const int32_t *expert = expert_NK.data<int32_t>(), *slot = slot_NK.data<int32_t>();
  counts.fill(0);
  double* const count = counts.data<double>();
  double* const sum = count + num_experts;
  const auto add = [&](RoutingCount what, int64_t number) {
    sum[static_cast<int>(what)] += static_cast<double>(number);
  };
  for (int64_t n = 0; n < expert_NK.dim(0); ++n) {
    int64_t chosen = 0, kept = 0;
    for (int64_t i = n * k; i < (n + 1) * k; ++i) {
      if (expert[i] < 0) continue;
      STMOE_CHECK(expert[i] < num_experts, "routing_counts: expert {} of {} at token {}", expert[i],
                  num_experts, n);
      ++count[expert[i]];
      ++chosen;
      kept += slot[i] >= 0;
    }
    const bool is_real = !tokens.real_N.defined() || tokens.real_N.data<int32_t>()[n] != 0;
    const bool counts_here = tokens.all ? is_real : chosen > 0;
    add(RoutingCount::pairs, chosen);
    add(RoutingCount::dropped, chosen - kept);
    add(RoutingCount::tokens, counts_here);
    add(RoutingCount::left_behind, counts_here && kept == 0);
  }
}

STMOE_REGISTER_KERNELS(RoutingCountsKernels, cpu, {count_cpu})

}  // namespace

Tensor routing_counts(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                      const RoutedTokens& tokens) {
  OpScope scope("routing_counts", OpScope::Pass::forward);
  STMOE_CHECK(expert_NK.rank() == 2 && expert_NK.shape() == slot_NK.shape() && num_experts >= 1,
              "routing_counts: choices {} and slots {} of {} experts", expert_NK.shape().text(),
              slot_NK.shape().text(), num_experts);
  STMOE_CHECK(!tokens.real_N.defined() || tokens.real_N.numel() == expert_NK.dim(0),
              "routing_counts: mask {} for {} tokens", tokens.real_N.shape().text(),
              expert_NK.dim(0));
  RoutedTokens plain = tokens;
  if (plain.real_N.defined()) plain.real_N = plain.real_N.contiguous();
  const Tensor counts =
      Tensor::empty({num_experts + kNumRoutingCounts}, DType::f64, expert_NK.device());
  kernels<RoutingCountsKernels>(expert_NK.device())
      .count(counts, expert_NK.contiguous(), slot_NK.contiguous(), plain);
  return counts;
}

}  // namespace stmoe
