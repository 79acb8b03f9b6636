// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/means.h"
#include "lib/ops/router_entropy.h"

namespace stmoe::gpu {
namespace {

constexpr int kWarps = kMeanThreads / kWarp;
constexpr int64_t kWarpTokens = 8;

// A warp for 8 tokens, one after another: reads 8 bytes a probability. Tokens are added up in f64,
// lane by lane, and a block's 64 in a fixed order.
template <class T>
STMOE_KERNEL sum_entropies(Term* partial, const T* p_NE, const T* logits_NE, const T* lse_N,
                           const int32_t* mask_N, int64_t tokens, int64_t experts) {
  STMOE_SHARED(double, sums, 2 * kWarp);
  Term own;
  for (int64_t i = 0; i < kWarpTokens; ++i) {
    const int64_t n = (block_index() * kWarps + warp_index()) * kWarpTokens + i;
    if (n >= tokens || (mask_N && mask_N[n] == 0)) continue;
    // Shifted by lse, so that large logits do not cancel.
    const T lse = lse_N[n];
    T entropy = 0;
    for (int64_t e = n * experts + lane_index(); e < (n + 1) * experts; e += kWarp)
      entropy += p_NE[e] * (lse - logits_NE[e]);
    own.value += static_cast<double>(entropy);
    own.count += lane_index() == 0;
  }
  write_block_sum(partial, own, sums);
}

template <class T>
void mean_typed(const Tensor& entropy, const Tensor& p_NE, const Tensor& logits_NE,
                const Tensor& lse_N, const Tensor& mask_N) {
  const int64_t tokens = p_NE.dim(0);
  const Grid grid = blocks_for(tokens, kWarps * kWarpTokens);
  const Tensor partial = empty_terms(grid.x, p_NE.device());
  launch(sum_entropies<T>, grid, kMeanThreads, 0, terms_of(partial), p_NE.data<T>(),
         logits_NE.data<T>(), lse_N.data<T>(), mask_N.defined() ? mask_N.data<int32_t>() : nullptr,
         tokens, p_NE.dim(1));
  launch(finish_mean<double>, {1}, kMeanThreads, 0, entropy.data<double>(), nullptr,
         terms_of(partial), grid.x);
}

void mean(const Tensor& entropy, const Tensor& p_NE, const Tensor& logits_NE, const Tensor& lse_N,
          const Tensor& mask_N) {
  if (p_NE.dtype() == DType::f64)
    mean_typed<double>(entropy, p_NE, logits_NE, lse_N, mask_N);
  else
    mean_typed<float>(entropy, p_NE, logits_NE, lse_N, mask_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(RouterEntropyKernels, STMOE_GPU, {gpu::mean})

}  // namespace stmoe
