// SPDX-License-Identifier: Apache-2.0
// Insertion into a short sorted list: k is small, and most values fail the first comparison.
#include "lib/ops/top_k.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "lib/base/profile.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements: a small router runs on one thread

// best[0..k) falling, index beside it. A later column goes in front of smaller values only, so
// equals keep their order.
template <class T>
void choose_row(const T* values, int64_t count, int64_t k, T* best, int32_t* index) {
  int64_t filled = 0;
  for (int64_t e = 0; e < count; ++e) {
    const T value = values[e] == values[e] ? values[e] : -std::numeric_limits<T>::infinity();
    if (filled == k && !(value > best[k - 1])) continue;
    int64_t at = filled < k ? filled++ : k - 1;
    for (; at > 0 && value > best[at - 1]; --at) {
      best[at] = best[at - 1];
      index[at] = index[at - 1];
    }
    best[at] = value;
    index[at] = static_cast<int32_t>(e);
  }
}

template <class T>
void choose_rows(const Tensor& index_NK, const Tensor& values_NE, const Tensor& mask_N) {
  const int64_t experts = values_NE.dim(1), k = index_NK.dim(1);
  parallel_for(values_NE.dim(0), std::max<int64_t>(1, kChunk / experts),
               [&](int64_t begin, int64_t end) {
                 std::vector<T> best(static_cast<size_t>(k));
                 for (int64_t n = begin; n < end; ++n) {
                   int32_t* index = index_NK.data<int32_t>() + n * k;
                   if (mask_N.defined() && mask_N.data<int32_t>()[n] == 0)
                     std::fill(index, index + k, -1);
                   else
                     choose_row(values_NE.data<T>() + n * experts, experts, k, best.data(), index);
                 }
               });
}

void choose_cpu(const Tensor& index_NK, const Tensor& values_NE, const Tensor& mask_N) {
  if (values_NE.dtype() == DType::f64)
    choose_rows<double>(index_NK, values_NE, mask_N);
  else
    choose_rows<float>(index_NK, values_NE, mask_N);
}

STMOE_REGISTER_KERNELS(TopKKernels, cpu, {choose_cpu})

}  // namespace

Tensor top_k(const Tensor& values_NE, int64_t k, const Tensor& mask_N) {
  OpScope scope("top_k", OpScope::Pass::forward);
  STMOE_CHECK(
      values_NE.rank() == 2 && (values_NE.dtype() == DType::f32 || values_NE.dtype() == DType::f64),
      "top_k: values are {} {}, expected f32 or f64 [rows, columns]", name_of(values_NE.dtype()),
      values_NE.shape().text());
  STMOE_CHECK(k >= 1 && k <= values_NE.dim(1), "top_k: k is {} for {} columns", k,
              values_NE.dim(1));
  STMOE_CHECK(
      !mask_N.defined() || (mask_N.numel() == values_NE.dim(0) && mask_N.dtype() == DType::i32),
      "top_k: mask {} for {} rows", mask_N.shape().text(), values_NE.dim(0));
  const Tensor index_NK = Tensor::empty({values_NE.dim(0), k}, DType::i32, values_NE.device());
  kernels<TopKKernels>(values_NE.device())
      .choose(index_NK, values_NE.contiguous(), mask_N.defined() ? mask_N.contiguous() : mask_N);
  return index_NK;
}

}  // namespace stmoe
