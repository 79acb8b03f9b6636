// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/choose_all.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// A thread for each entry: writes 8 bytes.
STMOE_KERNEL fill_choices(int32_t* expert_NE, int32_t* slot_NE, const int32_t* mask_N,
                          int64_t entries, int64_t experts) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < entries) {
    const int64_t n = quotient(i, experts);
    const bool is_skipped = mask_N && mask_N[n] == 0;
    expert_NE[i] = is_skipped ? -1 : static_cast<int32_t>(i - n * experts);
    slot_NE[i] = is_skipped ? -1 : static_cast<int32_t>(n);
  }
}

// A warp for each token: reads 4 bytes an entry and writes as many.
template <class T>
STMOE_KERNEL invert_counts(T* inverse_NE, const int32_t* expert_NE, int64_t tokens,
                           int64_t experts) {
  const int64_t n = block_index() * kWarps + warp_index();
  if (n < tokens) {
    int count = 0;
    for (int64_t e = lane_index(); e < experts; e += kWarp)
      count += expert_NE[n * experts + e] >= 0;
    count = warp_sum(count);
    const T inverse = T(1) / static_cast<T>(count > 0 ? count : 1);
    for (int64_t e = lane_index(); e < experts; e += kWarp) inverse_NE[n * experts + e] = inverse;
  }
}

void choose(const AllChosen& chosen, const Tensor& mask_N) {
  const int64_t entries = chosen.expert_NE.numel();
  launch(fill_choices, blocks_for(entries, kThreads), kThreads, 0, chosen.expert_NE.data<int32_t>(),
         chosen.slot_NE.data<int32_t>(), mask_N.defined() ? mask_N.data<int32_t>() : nullptr,
         entries, chosen.expert_NE.dim(1));
}

template <class T>
void invert_typed(const Tensor& inverse_NE, const Tensor& expert_NE) {
  launch(invert_counts<T>, blocks_for(expert_NE.dim(0), kWarps), kThreads, 0, inverse_NE.data<T>(),
         expert_NE.data<int32_t>(), expert_NE.dim(0), expert_NE.dim(1));
}

void invert(const Tensor& inverse_NE, const Tensor& expert_NE) {
  if (inverse_NE.dtype() == DType::f64)
    invert_typed<double>(inverse_NE, expert_NE);
  else
    invert_typed<float>(inverse_NE, expert_NE);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ChooseAllKernels, STMOE_GPU, {gpu::choose, gpu::invert})

}  // namespace stmoe
