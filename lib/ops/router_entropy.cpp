// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_entropy.h"

#include <algorithm>
#include <vector>

#include "lib/base/profile.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements: a small router runs on one thread

struct Sum {
  double entropy = 0;
  int64_t tokens = 0;
};

template <class T>
Sum sum_tokens(int64_t begin, int64_t end, const Tensor& p_NE, const Tensor& logits_NE,
               const Tensor& lse_N, const Tensor& mask_N) {
  const int64_t experts = p_NE.dim(1);
  Sum sum;
  for (int64_t n = begin; n < end; ++n) {
    if (mask_N.defined() && mask_N.data<int32_t>()[n] == 0) continue;
    const T *p = p_NE.data<T>() + n * experts, *logits = logits_NE.data<T>() + n * experts;
    const T lse = lse_N.data<T>()[n];
    T entropy = 0;
    // Shifted by lse, so that large logits do not cancel.
#pragma omp simd reduction(+ : entropy)
    for (int64_t e = 0; e < experts; ++e) entropy += p[e] * (lse - logits[e]);
    sum.entropy += static_cast<double>(entropy);
    ++sum.tokens;
  }
  return sum;
}

void mean_cpu(const Tensor& entropy, const Tensor& p_NE, const Tensor& logits_NE,
              const Tensor& lse_N, const Tensor& mask_N) {
  const int64_t tokens = p_NE.dim(0);
  const int64_t per_chunk = std::max<int64_t>(1, kChunk / p_NE.dim(1));
  std::vector<Sum> sums(static_cast<size_t>(num_chunks(tokens, per_chunk)));
  parallel_for(tokens, per_chunk, [&](int64_t begin, int64_t end, int64_t chunk) {
    sums[static_cast<size_t>(chunk)] =
        p_NE.dtype() == DType::f64 ? sum_tokens<double>(begin, end, p_NE, logits_NE, lse_N, mask_N)
                                   : sum_tokens<float>(begin, end, p_NE, logits_NE, lse_N, mask_N);
  });
  Sum total;
  for (const Sum& sum : sums) {
    total.entropy += sum.entropy;
    total.tokens += sum.tokens;
  }
  *entropy.data<double>() =
      total.tokens > 0 ? total.entropy / static_cast<double>(total.tokens) : 0.0;
}

STMOE_REGISTER_KERNELS(RouterEntropyKernels, cpu, {mean_cpu})

}  // namespace

Tensor router_entropy(const Tensor& p_NE, const Tensor& logits_NE, const Tensor& lse_N,
                      const Tensor& mask_N) {
  OpScope scope("router_entropy", OpScope::Pass::forward);
  STMOE_CHECK(p_NE.rank() == 2 && p_NE.shape() == logits_NE.shape() &&
                  lse_N.numel() == p_NE.dim(0) && p_NE.dtype() == logits_NE.dtype() &&
                  p_NE.dtype() == lse_N.dtype(),
              "router_entropy: p {}, logits {}, lse {}", p_NE.shape().text(),
              logits_NE.shape().text(), lse_N.shape().text());
  const Tensor entropy = Tensor::empty({1}, DType::f64, p_NE.device());
  kernels<RouterEntropyKernels>(p_NE.device())
      .mean(entropy, p_NE.contiguous(), logits_NE.contiguous(), lse_N.contiguous(),
            mask_N.defined() ? mask_N.contiguous() : mask_N);
  return entropy;
}

}  // namespace stmoe
