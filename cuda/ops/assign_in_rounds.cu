// SPDX-License-Identifier: Apache-2.0
// A round is a ranking of the tokens that have no place by the expert that they try
// (expert_ranks.h) whose places begin where the round before ended. That counts tokens that an
// expert did not take any more, which changes nothing: it was full then.
#include "cuda/device/expert_ranks.h"
#include "lib/ops/assign_in_rounds.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

struct RoundEntries {
  const int32_t* expert_NK;
  int32_t *taker_N, *slot_N;
  int64_t tokens, k, choice, capacity;
};

STMOE_DEVICE int expert_at(const RoundEntries& in, int64_t group, int64_t i) {
  const int64_t n = group * in.tokens + i;
  return in.slot_N[n] >= 0 ? -1 : in.expert_NK[n * in.k + in.choice];
}

// A thread writes only what it alone reads.
STMOE_DEVICE void place_at(const RoundEntries& in, int64_t group, int64_t i, int expert,
                           int64_t place) {
  if (expert < 0 || place >= in.capacity) return;
  in.taker_N[group * in.tokens + i] = expert;
  in.slot_N[group * in.tokens + i] = static_cast<int32_t>(group * in.capacity + place);
}

// A thread for each token.
STMOE_KERNEL start(int32_t* taker_N, int32_t* slot_N, const int32_t* expert_NK, int64_t tokens,
                   int64_t k) {
  const int64_t n = block_index() * kThreads + thread_index();
  if (n < tokens) {
    taker_N[n] = expert_NK[n * k];
    slot_N[n] = -1;
  }
}

void assign(const RoundPlaces& places, const Tensor& expert_NK, int64_t num_experts,
            int64_t num_groups, int64_t capacity) {
  const int64_t k = expert_NK.dim(1), tokens = expert_NK.dim(0) / num_groups;
  RoundEntries entries = {expert_NK.data<int32_t>(),
                          places.expert_N1.data<int32_t>(),
                          places.slot_N1.data<int32_t>(),
                          tokens,
                          k,
                          0,
                          capacity};
  launch(start, blocks_for(expert_NK.dim(0), kThreads), kThreads, 0, entries.taker_N,
         entries.slot_N, entries.expert_NK, expert_NK.dim(0), k);
  RankOptions options;
  options.total_GE = Tensor::empty({num_groups, num_experts}, DType::i32, expert_NK.device());
  for (; entries.choice < k; ++entries.choice) {
    options.goes_on = entries.choice > 0;
    rank_entries(entries, num_groups, tokens, num_experts, expert_NK.device(), options);
  }
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AssignInRoundsKernels, STMOE_GPU, {gpu::assign})

}  // namespace stmoe
