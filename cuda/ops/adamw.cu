// SPDX-License-Identifier: Apache-2.0
// One pass over a weight: of an element 12 bytes read and 8 written besides the weight's own
// (cuda/device/weights.h). A thread has two vectors of each of the four tensors under way.
#include "cuda/device/map.h"
#include "cuda/device/weights.h"
#include "lib/optim/adamw.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kHeld = 2;

struct Coefficients {
  float beta1, keep1, beta2, keep2, decay, step_size, second_correction, epsilon;
};

template <int V, class W>
STMOE_KERNEL update_kernel(W weights, float* first, float* second, const float* gradient,
                           int64_t units, Coefficients c) {
  const int64_t begin = block_index() * block_threads() * kHeld + thread_index();
  float w[kHeld][V], m[kHeld][V], v[kHeld][V], g[kHeld][V];
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = begin + int64_t{j} * block_threads();
    if (unit < units) {
      weights.load(w[j], unit * V);
      load_values<V>(m[j], first + unit * V);
      load_values<V>(v[j], second + unit * V);
      load_values<V>(g[j], gradient + unit * V);
    }
  }
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = begin + int64_t{j} * block_threads();
    if (unit < units) {
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        m[j][i] = c.beta1 * m[j][i] + c.keep1 * g[j][i];
        v[j][i] = c.beta2 * v[j][i] + c.keep2 * (g[j][i] * g[j][i]);
        w[j][i] = c.decay * w[j][i] -
                  c.step_size * m[j][i] / (sqrtf(v[j][i]) / c.second_correction + c.epsilon);
      }
      store_values(first + unit * V, m[j]);
      store_values(second + unit * V, v[j]);
      weights.store(unit * V, w[j]);
    }
  }
}

void update(const AdamWUpdate& u) {
  const Coefficients c = {static_cast<float>(u.beta1),
                          static_cast<float>(1.0 - u.beta1),
                          static_cast<float>(u.beta2),
                          static_cast<float>(1.0 - u.beta2),
                          static_cast<float>(u.decay),
                          static_cast<float>(u.step_size),
                          static_cast<float>(u.second_correction),
                          static_cast<float>(u.epsilon)};
  const int64_t count = u.gradient.numel();
  const bool in_vectors = tiles_weights(u.weight, count) &&
                          tiles_rows(4, count, u.first.raw(), u.second.raw(), u.gradient.raw());
  visit_weights(u.weight, [&](auto weights) {
    visit_vector<float>(in_vectors, [&](auto v) {
      constexpr int V = decltype(v)::value;
      launch(update_kernel<V, decltype(weights)>, blocks_for(count / V, kThreads * kHeld), kThreads,
             0, weights, u.first.data<float>(), u.second.data<float>(), u.gradient.data<float>(),
             count / V, c);
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AdamWKernels, STMOE_GPU, {gpu::update})

}  // namespace stmoe
