// SPDX-License-Identifier: Apache-2.0
// A token's threshold is one of two of its noisy values. Forward: slices of tokens by column, in
// f64. Backward: a warp for each token, whose lanes sum up what goes to either of the two.
#include <cmath>
#include <numbers>

#include "cuda/device/column_sums.h"
#include "cuda/device/vector.h"
#include "lib/ops/top_k_load.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int64_t kSliceTokens = 64;

// One token's row.
template <class T>
struct Row {
  const T *clean, *noisy, *deviation;
  const int32_t* largest;
  int64_t k;

  STMOE_METHOD Row(const T* all_clean, const T* all_noisy, const T* all_deviation,
                   const int32_t* all_largest, int64_t n, int64_t experts, int64_t kept)
      : clean(all_clean + n * experts),
        noisy(all_noisy + n * experts),
        deviation(all_deviation + n * experts),
        largest(all_largest + n * (kept + 1)),
        k(kept) {}

  STMOE_METHOD bool is_left_out() const { return largest[k] < 0; }
  // Whether the value that column e would have to beat is the (k + 1)-th largest, not the k-th.
  STMOE_METHOD bool is_inside(int64_t e) const { return noisy[e] > noisy[largest[k]]; }
  // How far it is above that, in deviations.
  STMOE_METHOD T margin(int64_t e) const {
    return (clean[e] - noisy[largest[is_inside(e) ? k : k - 1]]) / deviation[e];
  }
};

// Block (slice of tokens, 256 columns): a thread has a column. partial [slices, experts]. Reads
// each of the three once.
template <class T>
STMOE_KERNEL sum_slices(double* partial, const T* clean, const T* noisy, const T* deviation,
                        const int32_t* largest, int64_t tokens, int64_t experts, int64_t k) {
  const int64_t e = block_index_y() * kThreads + thread_index();
  const int64_t first = block_index() * kSliceTokens;
  double sum = 0;
  if (e < experts)
    for (int64_t n = first; n < first + kSliceTokens && n < tokens; ++n) {
      const Row<T> row(clean, noisy, deviation, largest, n, experts, k);
      if (!row.is_left_out())
        sum += static_cast<double>(T(0.5) * std::erfc(-row.margin(e) / std::numbers::sqrt2_v<T>));
    }
  if (e < experts) partial[block_index() * experts + e] = sum;
}

// A warp for each token. Reads the three inputs, writes the three gradients.
template <class T>
STMOE_KERNEL write_gradients(T* dclean, T* dnoisy, T* ddeviation, const T* dload, const T* clean,
                             const T* noisy, const T* deviation, const int32_t* largest,
                             int64_t tokens, int64_t experts, int64_t k) {
  const int64_t n = block_index() * kWarps + warp_index();
  const T peak = T(std::numbers::inv_sqrtpi / std::numbers::sqrt2);  // the density at 0
  const bool is_token = n < tokens;
  const Row<T> row(clean, noisy, deviation, largest, is_token ? n : 0, experts, k);
  const bool is_real = is_token && !row.is_left_out();
  T inside = 0, outside = 0;  // of the (k + 1)-th and of the k-th largest
  for (int64_t e = lane_index(); is_token && e < experts; e += kWarp) {
    T slope = 0, margin = 0;
    if (is_real) {
      margin = row.margin(e);
      slope = dload[e] * peak * std::exp(T(-0.5) * margin * margin) / row.deviation[e];
      (row.is_inside(e) ? inside : outside) += slope;
    }
    dclean[n * experts + e] = slope;
    ddeviation[n * experts + e] = -slope * margin;
  }
  inside = warp_sum(inside);
  outside = warp_sum(outside);
  for (int64_t e = lane_index(); is_token && e < experts; e += kWarp) {
    T gradient = 0;
    if (is_real && e == row.largest[k]) gradient = -inside;
    if (is_real && e == row.largest[k - 1]) gradient = -outside;
    dnoisy[n * experts + e] = gradient;
  }
}

void forward(const Tensor& load_E, const TopKLoadInputs& in) {
  const int64_t tokens = in.clean_NE.dim(0), experts = load_E.numel();
  const int64_t slices = blocks_for(tokens, kSliceTokens).x;
  const Tensor partial = Tensor::empty({slices, experts}, DType::f64, load_E.device());
  visit_wide(load_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(sum_slices<T>, {slices, blocks_for(experts, kThreads).x}, kThreads, 0,
           partial.data<double>(), in.clean_NE.data<T>(), in.noisy_NE.data<T>(),
           in.deviation_NE.data<T>(), in.largest_NK1.data<int32_t>(), tokens, experts,
           in.largest_NK1.dim(1) - 1);
    sum_columns(load_E.data<T>(), partial.data<double>(), 1, slices, experts);
  });
}

void backward(const Tensor& dclean_NE, const Tensor& dnoisy_NE, const Tensor& ddeviation_NE,
              const Tensor& dload_E, const TopKLoadInputs& in) {
  const int64_t tokens = in.clean_NE.dim(0);
  visit_wide(dload_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(write_gradients<T>, blocks_for(tokens, kWarps), kThreads, 0, dclean_NE.data<T>(),
           dnoisy_NE.data<T>(), ddeviation_NE.data<T>(), dload_E.data<T>(), in.clean_NE.data<T>(),
           in.noisy_NE.data<T>(), in.deviation_NE.data<T>(), in.largest_NK1.data<int32_t>(), tokens,
           in.clean_NE.dim(1), in.largest_NK1.dim(1) - 1);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(TopKLoadKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
