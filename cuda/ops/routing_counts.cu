// SPDX-License-Identifier: Apache-2.0
// Experts are counted as they are for slots (expert_ranks.h), tokens by blocks whose sums are added
// in a last launch. Integers: the order does not matter.
#include "cuda/device/expert_ranks.h"
#include "lib/ops/routing_counts.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// All choices as one group.
struct AllChoices {
  const int32_t* expert_NK;
};

STMOE_DEVICE int expert_at(const AllChoices& in, int64_t, int64_t i) { return in.expert_NK[i]; }

// A thread for each token, reads 8 bytes a choice. partial [blocks, 4].
STMOE_KERNEL count_tokens(int64_t* partial, const int32_t* expert_NK, const int32_t* slot_NK,
                          const int32_t* real_N, bool counts_all, int64_t tokens, int64_t k) {
  STMOE_SHARED(int64_t, sums, kNumRoutingCounts * kWarp);
  const int64_t n = block_index() * kThreads + thread_index();
  int64_t chosen = 0, kept = 0;
  bool counts_here = false;
  if (n < tokens) {
    for (int64_t i = n * k; i < (n + 1) * k; ++i) {
      chosen += expert_NK[i] >= 0;
      kept += expert_NK[i] >= 0 && slot_NK[i] >= 0;
    }
    counts_here = counts_all ? !real_N || real_N[n] != 0 : chosen > 0;
  }
  const int64_t own[kNumRoutingCounts] = {chosen, chosen - kept, counts_here,
                                          counts_here && kept == 0};
  STMOE_UNROLL
  for (int i = 0; i < kNumRoutingCounts; ++i) {
    const int64_t total = block_sum(own[i], sums + i * kWarp);
    if (thread_index() == 0) partial[block_index() * kNumRoutingCounts + i] = total;
  }
}

// One block: the experts' counts as f64, and behind them the sums of what blocks counted.
STMOE_KERNEL finish_counts(double* counts, const int32_t* count_E, const int64_t* partial,
                           int64_t experts, int64_t blocks) {
  STMOE_SHARED(int64_t, sums, kNumRoutingCounts * kWarp);
  for (int64_t e = thread_index(); e < experts; e += kThreads)
    counts[e] = static_cast<double>(count_E[e]);
  STMOE_UNROLL
  for (int i = 0; i < kNumRoutingCounts; ++i) {
    int64_t own = 0;
    for (int64_t b = thread_index(); b < blocks; b += kThreads)
      own += partial[b * kNumRoutingCounts + i];
    const int64_t total = block_sum(own, sums + i * kWarp);
    if (thread_index() == 0) counts[experts + i] = static_cast<double>(total);
  }
}

void count(const Tensor& counts, const Tensor& expert_NK, const Tensor& slot_NK,
           const RoutedTokens& tokens) {
  const Device device = counts.device();
  const int64_t experts = counts.numel() - kNumRoutingCounts, k = expert_NK.dim(1);
  const Tensor count_E =
      count_experts(AllChoices{expert_NK.data<int32_t>()}, 1, expert_NK.numel(), experts, device);
  const Grid grid = blocks_for(expert_NK.dim(0), kThreads);
  const Tensor partial = Tensor::empty({grid.x, kNumRoutingCounts}, DType::i64, device);
  launch(count_tokens, grid, kThreads, 0, partial.data<int64_t>(), expert_NK.data<int32_t>(),
         slot_NK.data<int32_t>(), tokens.real_N.defined() ? tokens.real_N.data<int32_t>() : nullptr,
         tokens.all, expert_NK.dim(0), k);
  launch(finish_counts, {1}, kThreads, 0, counts.data<double>(), count_E.data<int32_t>(),
         partial.data<int64_t>(), experts, grid.x);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(RoutingCountsKernels, STMOE_GPU, {gpu::count})

}  // namespace stmoe
