// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cuda/device/row_walk.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/softmax_with_lse.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// A warp for each token. Reads 4 bytes a probability and writes 4; rows of more than 256 experts
// are read three times, from the caches. Eight rows a block keep enough loads on their way.
template <class T>
STMOE_KERNEL softmax_rows(T* p_NE, T* lse_N, const T* logits_NE, int64_t tokens, int experts) {
  const int64_t n = block_index() * kWarps + warp_index();
  if (n < tokens) {
    const auto logits = load_columns(logits_NE + n * experts, experts);
    T largest = logits_NE[n * experts], total = 0;
    for_each_column(logits, [&](int, T x) { largest = x > largest ? x : largest; });
    largest = warp_max(largest);
    for_each_column(logits, [&](int, T x) { total += std::exp(x - largest); });
    total = warp_sum(total);
    const T inverse = T(1) / total;
    for_each_column(logits,
                    [&](int e, T x) { p_NE[n * experts + e] = std::exp(x - largest) * inverse; });
    if (lane_index() == 0) lse_N[n] = largest + std::log(total);
  }
}

// A warp for each token. Reads p and dp and writes dlogits, 4 bytes a probability each; dp_NE or
// dlse_N may be null: zero.
template <class T>
STMOE_KERNEL softmax_gradient(T* dlogits_NE, const T* dp_NE, const T* dlse_N, const T* p_NE,
                              int64_t tokens, int experts) {
  const int64_t n = block_index() * kWarps + warp_index();
  if (n < tokens) {
    const auto p = load_columns(p_NE + n * experts, experts);
    const T* dp = dp_NE ? dp_NE + n * experts : nullptr;
    T shift = dlse_N ? dlse_N[n] : T(0);
    if (dp) {
      T dot = 0;
      for_each_column(p, [&](int e, T value) { dot += dp[e] * value; });
      shift -= warp_sum(dot);
    }
    for_each_column(p, [&](int e, T value) {
      dlogits_NE[n * experts + e] = value * ((dp ? dp[e] : T(0)) + shift);
    });
  }
}

template <class T>
void forward_typed(const Tensor& p_NE, const Tensor& lse_N, const Tensor& logits_NE) {
  launch(softmax_rows<T>, blocks_for(p_NE.dim(0), kWarps), kThreads, 0, p_NE.data<T>(),
         lse_N.data<T>(), logits_NE.data<T>(), p_NE.dim(0), p_NE.dim(1));
}

template <class T>
void backward_typed(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& dlse_N,
                    const Tensor& p_NE) {
  launch(softmax_gradient<T>, blocks_for(p_NE.dim(0), kWarps), kThreads, 0, dlogits_NE.data<T>(),
         dp_NE.defined() ? dp_NE.data<T>() : nullptr, dlse_N.defined() ? dlse_N.data<T>() : nullptr,
         p_NE.data<T>(), p_NE.dim(0), p_NE.dim(1));
}

void forward(const Tensor& p_NE, const Tensor& lse_N, const Tensor& logits_NE) {
  if (p_NE.dtype() == DType::f64)
    forward_typed<double>(p_NE, lse_N, logits_NE);
  else
    forward_typed<float>(p_NE, lse_N, logits_NE);
}

void backward(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& dlse_N,
              const Tensor& p_NE) {
  if (p_NE.dtype() == DType::f64)
    backward_typed<double>(dlogits_NE, dp_NE, dlse_N, p_NE);
  else
    backward_typed<float>(dlogits_NE, dp_NE, dlse_N, p_NE);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(SoftmaxWithLseKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
