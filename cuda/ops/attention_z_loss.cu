// SPDX-License-Identifier: Apache-2.0
// One f32 per query and head: next to nothing beside the attention.
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/attention_z_loss.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 264;  // two a multiprocessor

STMOE_DEVICE bool is_seen(float lse) { return lse != -HUGE_VALF; }

// Block i adds up the squares of every num_blocks()-th run of kThreads values, 4 bytes each: the
// order hangs on the number of values alone. Writes one partial sum and count.
STMOE_KERNEL square_sums(double* sums, int64_t* counts, const float* lse, int64_t count) {
  STMOE_SHARED(double, partial_sum, 32);
  STMOE_SHARED(int64_t, partial_count, 32);
  float sum = 0;
  int64_t seen = 0;
  for (int64_t i = block_index() * kThreads + thread_index(); i < count;
       i += num_blocks() * kThreads) {
    const float value = lse[i];
    if (is_seen(value)) {
      sum += value * value;
      ++seen;
    }
  }
  const double block_total = block_sum(static_cast<double>(sum), partial_sum);
  const int64_t block_seen = block_sum(seen, partial_count);
  if (thread_index() == 0) {
    sums[block_index()] = block_total;
    counts[block_index()] = block_seen;
  }
}

// One block: the partial sums, in f64 and in order.
STMOE_KERNEL mean_of_sums(float* loss, int64_t* num_pairs, const double* sums,
                          const int64_t* counts, int64_t count) {
  STMOE_SHARED(double, partial_sum, 32);
  STMOE_SHARED(int64_t, partial_count, 32);
  double sum = 0;
  int64_t pairs = 0;
  for (int64_t i = thread_index(); i < count; i += kThreads) {
    sum += sums[i];
    pairs += counts[i];
  }
  sum = block_sum(sum, partial_sum);
  pairs = block_sum(pairs, partial_count);
  if (thread_index() == 0) {
    *loss = pairs == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(pairs));
    *num_pairs = pairs;
  }
}

// A thread an element: 4 bytes read, 4 written.
STMOE_KERNEL scale_lse(float* dlse, const float* dloss, const float* lse, const int64_t* num_pairs,
                       int64_t count) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < count) {
    const int64_t pairs = *num_pairs > 1 ? *num_pairs : 1;
    const float value = lse[i];
    dlse[i] = is_seen(value) ? 2 * *dloss / static_cast<float>(pairs) * value : 0.0f;
  }
}

void forward(const Tensor& loss, const Tensor& num_pairs, const Tensor& lse_BHQ) {
  const Grid all = blocks_for(lse_BHQ.numel(), kThreads);
  const int64_t blocks = all.x > kMostBlocks ? kMostBlocks : all.x;
  const Tensor sums = Tensor::empty({blocks}, DType::f64, lse_BHQ.device());
  const Tensor counts = Tensor::empty({blocks}, DType::i64, lse_BHQ.device());
  launch(square_sums, Grid{blocks, 1}, kThreads, 0, sums.data<double>(), counts.data<int64_t>(),
         lse_BHQ.data<float>(), lse_BHQ.numel());
  launch(mean_of_sums, Grid{}, kThreads, 0, loss.data<float>(), num_pairs.data<int64_t>(),
         sums.data<double>(), counts.data<int64_t>(), blocks);
}

void backward(const Tensor& dlse_BHQ, const Tensor& dloss, const Tensor& lse_BHQ,
              const Tensor& num_pairs) {
  launch(scale_lse, blocks_for(lse_BHQ.numel(), kThreads), kThreads, 0, dlse_BHQ.data<float>(),
         dloss.data<float>(), lse_BHQ.data<float>(), num_pairs.data<int64_t>(), lse_BHQ.numel());
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AttentionZLossKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
