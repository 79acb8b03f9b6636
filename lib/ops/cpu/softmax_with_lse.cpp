// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/softmax_with_lse.h"

#include <algorithm>
#include <cmath>

#include "lib/base/threads.h"
#include "lib/ops/cpu/vector_math.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements: a small router runs on one thread

template <class T>
void forward_rows(const Tensor& p_NE, const Tensor& lse_N, const Tensor& logits_NE) {
  const int64_t experts = p_NE.dim(1);
  parallel_for(p_NE.dim(0), std::max<int64_t>(1, kChunk / experts),
               [&](int64_t begin, int64_t end) {
                 for (int64_t n = begin; n < end; ++n) {
                   const T* logits = logits_NE.data<T>() + n * experts;
                   T* p = p_NE.data<T>() + n * experts;
                   T largest = logits[0], total = 0;
#pragma omp simd reduction(max : largest)
                   for (int64_t e = 0; e < experts; ++e) largest = std::max(largest, logits[e]);
#pragma omp simd reduction(+ : total)
                   for (int64_t e = 0; e < experts; ++e)
                     total += p[e] = vector_exp(logits[e] - largest);
                   const T inverse = T{1} / total;
                   for (int64_t e = 0; e < experts; ++e) p[e] *= inverse;
                   lse_N.data<T>()[n] = largest + std::log(total);
                 }
               });
}

template <class T>
void backward_rows(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& dlse_N,
                   const Tensor& p_NE) {
  const int64_t experts = p_NE.dim(1);
  parallel_for(p_NE.dim(0), std::max<int64_t>(1, kChunk / experts),
               [&](int64_t begin, int64_t end) {
                 for (int64_t n = begin; n < end; ++n) {
                   const T* p = p_NE.data<T>() + n * experts;
                   T* dlogits = dlogits_NE.data<T>() + n * experts;
                   T shift = dlse_N.defined() ? dlse_N.data<T>()[n] : T{0};
                   if (!dp_NE.defined()) {
                     for (int64_t e = 0; e < experts; ++e) dlogits[e] = p[e] * shift;
                     continue;
                   }
                   const T* dp = dp_NE.data<T>() + n * experts;
                   T dot = 0;
#pragma omp simd reduction(+ : dot)
                   for (int64_t e = 0; e < experts; ++e) dot += dp[e] * p[e];
                   shift -= dot;
                   for (int64_t e = 0; e < experts; ++e) dlogits[e] = p[e] * (dp[e] + shift);
                 }
               });
}

void forward_cpu(const Tensor& p_NE, const Tensor& lse_N, const Tensor& logits_NE) {
  if (p_NE.dtype() == DType::f64)
    forward_rows<double>(p_NE, lse_N, logits_NE);
  else
    forward_rows<float>(p_NE, lse_N, logits_NE);
}

void backward_cpu(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& dlse_N,
                  const Tensor& p_NE) {
  if (p_NE.dtype() == DType::f64)
    backward_rows<double>(dlogits_NE, dp_NE, dlse_N, p_NE);
  else
    backward_rows<float>(dlogits_NE, dp_NE, dlse_N, p_NE);
}

STMOE_REGISTER_KERNELS(SoftmaxWithLseKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
