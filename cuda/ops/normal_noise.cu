// SPDX-License-Identifier: Apache-2.0
// The formula of random_normal in f64, whatever the type: the noise decides who is chosen, so it is
// to be the CPU's, to the last digits of a logarithm and a cosine.
#include <cmath>
#include <numbers>

#include "cuda/device/vector.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/normal_noise.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// One element a thread.
template <class T>
STMOE_KERNEL fill_normal(T* noise, int64_t count, RandomKey key, uint64_t first_index) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    const auto words = philox4x32(key, first_index + static_cast<uint64_t>(i));
    const double radius = std::sqrt(-2.0 * std::log(open_uniform(words[0], words[1])));
    const double angle = 2.0 * std::numbers::pi * open_uniform(words[2], words[3]);
    noise[i] = static_cast<T>(radius * std::cos(angle));
  }
}

void fill(const Tensor& noise, RandomKey key, uint64_t first_index) {
  visit_wide(noise.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(fill_normal<T>, blocks_for(noise.numel(), kThreads), kThreads, 0, noise.data<T>(),
           noise.numel(), key, first_index);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(NormalNoiseKernels, STMOE_GPU, {gpu::fill})

}  // namespace stmoe
