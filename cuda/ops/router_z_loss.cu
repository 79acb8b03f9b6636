// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/means.h"
#include "lib/ops/router_z_loss.h"

namespace stmoe::gpu {
namespace {

constexpr int64_t kBlockTokens = 2048;

// A block for 2048 tokens, 8 a thread: reads 4 bytes a token (8 with a mask), adds up in f64.
template <class T>
STMOE_KERNEL sum_squares(Term* partial, const T* lse_N, const int32_t* mask_N, int64_t tokens) {
  STMOE_SHARED(double, sums, 2 * kWarp);
  Term own;
  for (int64_t i = thread_index(); i < kBlockTokens; i += kMeanThreads) {
    const int64_t n = block_index() * kBlockTokens + i;
    if (n < tokens && (!mask_N || mask_N[n] != 0)) {
      const double lse = static_cast<double>(lse_N[n]);
      own.value += lse * lse;
      own.count += 1;
    }
  }
  write_block_sum(partial, own, sums);
}

// A thread for each token.
template <class T>
STMOE_KERNEL spread_squares(T* dlse_N, const T* dloss, const T* lse_N, const int32_t* mask_N,
                            const double* count, int64_t tokens) {
  const int64_t n = block_index() * kMeanThreads + thread_index();
  if (n < tokens) {
    const T factor = T(2) * *dloss / static_cast<T>(*count);
    dlse_N[n] = !mask_N || mask_N[n] != 0 ? factor * lse_N[n] : T(0);
  }
}

// `loss` or `count` may be null.
template <class T>
void mean_square(T* loss, double* count, const Tensor& lse_N, const Tensor& mask_N) {
  const int64_t tokens = lse_N.numel();
  const Grid grid = blocks_for(tokens, kBlockTokens);
  const Tensor partial = empty_terms(grid.x, lse_N.device());
  launch(sum_squares<T>, grid, kMeanThreads, 0, terms_of(partial), lse_N.data<T>(),
         mask_N.defined() ? mask_N.data<int32_t>() : nullptr, tokens);
  launch(finish_mean<T>, {1}, kMeanThreads, 0, loss, count, terms_of(partial), grid.x);
}

// The number of tokens is counted again: nothing need be kept of the forward pass.
template <class T>
void backward_typed(const Tensor& dlse_N, const Tensor& dloss, const Tensor& lse_N,
                    const Tensor& mask_N) {
  const Tensor count = Tensor::empty({1}, DType::f64, lse_N.device());
  mean_square<T>(nullptr, count.data<double>(), lse_N, mask_N);
  launch(spread_squares<T>, blocks_for(lse_N.numel(), kMeanThreads), kMeanThreads, 0,
         dlse_N.data<T>(), dloss.data<T>(), lse_N.data<T>(),
         mask_N.defined() ? mask_N.data<int32_t>() : nullptr, count.data<double>(), lse_N.numel());
}

void forward(const Tensor& loss, const Tensor& lse_N, const Tensor& mask_N) {
  if (lse_N.dtype() == DType::f64)
    mean_square<double>(loss.data<double>(), nullptr, lse_N, mask_N);
  else
    mean_square<float>(loss.data<float>(), nullptr, lse_N, mask_N);
}

void backward(const Tensor& dlse_N, const Tensor& dloss, const Tensor& lse_N,
              const Tensor& mask_N) {
  if (lse_N.dtype() == DType::f64)
    backward_typed<double>(dlse_N, dloss, lse_N, mask_N);
  else
    backward_typed<float>(dlse_N, dloss, lse_N, mask_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(RouterZLossKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
