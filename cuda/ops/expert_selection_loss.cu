// SPDX-License-Identifier: Apache-2.0
// Means over the experts by a warp for each token, then the groups' squares and the loss in f64.
#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/expert_selection_loss.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// A warp for each token: reads p once.
template <class T>
STMOE_KERNEL mean_over_experts(T* mean, const T* p, const int32_t* mask, int64_t tokens,
                               int64_t experts) {
  const int64_t n = block_index() * kWarps + warp_index();
  T total = 0;
  const bool is_real = n < tokens && (!mask || mask[n] != 0);
  if (is_real)
    for (int64_t e = lane_index(); e < experts; e += kWarp) total += p[n * experts + e];
  total = warp_sum(total);
  if (n < tokens && lane_index() == 0) mean[n] = total / static_cast<T>(experts);
}

// One group a block: its part of the loss, and the means scaled for the backward pass.
template <class T>
STMOE_KERNEL sum_groups(double* part, T* mean, const int32_t* mask, int64_t tokens) {
  STMOE_SHARED(double, shared, 2 * kWarp);
  const int64_t first = block_index() * tokens;
  double squares = 0, real = 0;
  for (int64_t n = first + thread_index(); n < first + tokens; n += block_threads()) {
    squares += static_cast<double>(mean[n]) * static_cast<double>(mean[n]);
    real += !mask || mask[n] != 0 ? 1 : 0;
  }
  const double factor = block_sum(real, shared) / static_cast<double>(num_blocks());
  for (int64_t n = first + thread_index(); n < first + tokens; n += block_threads())
    mean[n] *= static_cast<T>(factor);
  squares = block_sum(squares, shared + kWarp);
  if (thread_index() == 0) part[block_index()] = factor * squares;
}

// One warp.
template <class T>
STMOE_KERNEL add_groups(T* loss, const double* part, int64_t groups) {
  double total = 0;
  for (int64_t g = lane_index(); g < groups; g += kWarp) total += part[g];
  total = warp_sum(total);
  if (lane_index() == 0) *loss = static_cast<T>(total);
}

// One element a thread: writes it.
template <class T>
STMOE_KERNEL spread_gradient(T* dp, const T* dloss, const T* mean, int64_t count, int64_t experts) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) dp[i] = T(2) * *dloss / static_cast<T>(experts) * mean[quotient(i, experts)];
}

void forward(const Tensor& loss, const Tensor& mean_N, const Tensor& p_NE, int64_t num_groups,
             const Tensor& mask_N) {
  const int64_t tokens = p_NE.dim(0), experts = p_NE.dim(1);
  const int32_t* mask = mask_N.defined() ? mask_N.data<int32_t>() : nullptr;
  const Tensor part = Tensor::empty({num_groups}, DType::f64, p_NE.device());
  visit_wide(p_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(mean_over_experts<T>, blocks_for(tokens, kWarps), kThreads, 0, mean_N.data<T>(),
           p_NE.data<T>(), mask, tokens, experts);
    launch(sum_groups<T>, {num_groups}, kThreads, 0, part.data<double>(), mean_N.data<T>(), mask,
           tokens / num_groups);
    launch(add_groups<T>, {}, kWarp, 0, loss.data<T>(), part.data<double>(), num_groups);
  });
}

void backward(const Tensor& dp_NE, const Tensor& dloss, const Tensor& mean_N) {
  visit_wide(dp_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(spread_gradient<T>, blocks_for(dp_NE.numel(), kThreads), kThreads, 0, dp_NE.data<T>(),
           dloss.data<T>(), mean_N.data<T>(), dp_NE.numel(), dp_NE.dim(1));
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ExpertSelectionLossKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
