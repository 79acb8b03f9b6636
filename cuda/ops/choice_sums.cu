// SPDX-License-Identifier: Apache-2.0
// Slices of the choices are read by every expert's thread from shared memory and summed in order,
// in f64; then the slices' sums.
#include "cuda/device/column_sums.h"
#include "cuda/device/vector.h"
#include "lib/ops/choice_sums.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kSlice = 1024;

// Block (slice, 256 experts): partial [slices, experts]. Reads each choice once an expert block.
template <class T>
STMOE_KERNEL sum_slices(double* partial, const T* weight, const int32_t* expert, int64_t choices,
                        int64_t experts) {
  STMOE_SHARED(int32_t, chosen, kThreads);
  STMOE_SHARED(T, weights, kThreads);
  const int64_t mine = block_index_y() * kThreads + thread_index();
  double sum = 0;
  for (int64_t first = block_index() * kSlice; first < (block_index() + 1) * kSlice;
       first += kThreads) {
    const int64_t i = first + thread_index();
    chosen[thread_index()] = i < choices ? expert[i] : -1;
    weights[thread_index()] = i < choices ? weight[i] : T(0);
    STMOE_SYNC_THREADS();
    for (int j = 0; j < kThreads; ++j)
      if (chosen[j] == mine) sum += static_cast<double>(weights[j]);
    STMOE_SYNC_THREADS();
  }
  if (mine < experts) partial[block_index() * experts + mine] = sum;
}

// One choice a thread.
template <class T>
STMOE_KERNEL gather_gradient(T* dweight, const T* dy, const int32_t* expert, int64_t choices) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < choices) dweight[i] = expert[i] >= 0 ? dy[expert[i]] : T(0);
}

void forward(const Tensor& y_E, const Tensor& weight_NK, const Tensor& expert_NK) {
  const int64_t choices = expert_NK.numel(), experts = y_E.numel();
  const int64_t slices = blocks_for(choices, kSlice).x;
  const Tensor partial = Tensor::empty({slices, experts}, DType::f64, y_E.device());
  visit_wide(y_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(sum_slices<T>, {slices, blocks_for(experts, kThreads).x}, kThreads, 0,
           partial.data<double>(), weight_NK.data<T>(), expert_NK.data<int32_t>(), choices,
           experts);
    sum_columns(y_E.data<T>(), partial.data<double>(), 1, slices, experts);
  });
}

void backward(const Tensor& dweight_NK, const Tensor& dy_E, const Tensor& expert_NK) {
  visit_wide(dy_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(gather_gradient<T>, blocks_for(expert_NK.numel(), kThreads), kThreads, 0,
           dweight_NK.data<T>(), dy_E.data<T>(), expert_NK.data<int32_t>(), expert_NK.numel());
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ChoiceSumsKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
