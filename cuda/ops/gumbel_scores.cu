// SPDX-License-Identifier: Apache-2.0
// In f64, as on the CPU: the scores decide who is chosen.
#include <cmath>

#include "cuda/device/vector.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/gumbel_scores.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// One element a thread: reads and writes it once.
template <class T>
STMOE_KERNEL add_noise(T* y, const T* logits, int64_t count, double temperature, RandomKey key,
                       uint64_t first_index) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    // In the middle of its interval: neither 0 nor 1, whose noise is not finite.
    const float drawn = random_uniform(key, first_index + static_cast<uint64_t>(i));
    const double noise = -std::log(-std::log(static_cast<double>(drawn) + 0x1p-25));
    y[i] = static_cast<T>(static_cast<double>(logits[i]) / temperature + noise);
  }
}

void forward(const Tensor& y_NE, const Tensor& logits_NE, double temperature, RandomKey key,
             int64_t first_row) {
  visit_wide(y_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(add_noise<T>, blocks_for(y_NE.numel(), kThreads), kThreads, 0, y_NE.data<T>(),
           logits_NE.data<T>(), y_NE.numel(), temperature, key,
           static_cast<uint64_t>(first_row * y_NE.dim(1)));
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(GumbelScoresKernels, STMOE_GPU, {gpu::forward})

}  // namespace stmoe
