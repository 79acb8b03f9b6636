// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/adamw.h"

#include <cmath>

#include "lib/base/threads.h"
#include "lib/optim/cpu/stored_weights.h"

namespace stmoe {
namespace {

template <class T>
struct Coefficients {
  T beta1, keep1, beta2, keep2, decay, step_size, second_correction, epsilon;
};

// Outside the lambda, where captured pointers would be read again for every element.
template <class T>
void update_run(T* __restrict p, T* __restrict m, T* __restrict v, const T* __restrict g,
                const Coefficients<T>& coefficients, int64_t count) {
  const Coefficients<T> c = coefficients;
  for (int64_t i = 0; i < count; ++i) {
    m[i] = c.beta1 * m[i] + c.keep1 * g[i];
    v[i] = c.beta2 * v[i] + c.keep2 * (g[i] * g[i]);
    p[i] =
        c.decay * p[i] - c.step_size * m[i] / (std::sqrt(v[i]) / c.second_correction + c.epsilon);
  }
}

template <class T>
void update_typed(const AdamWUpdate& u) {
  // 1 - b in f64: in f32 it would lose digits.
  const Coefficients<T> c = {static_cast<T>(u.beta1),
                             static_cast<T>(1.0 - u.beta1),
                             static_cast<T>(u.beta2),
                             static_cast<T>(1.0 - u.beta2),
                             static_cast<T>(u.decay),
                             static_cast<T>(u.step_size),
                             static_cast<T>(u.second_correction),
                             static_cast<T>(u.epsilon)};
  T *m = u.first.data<T>(), *v = u.second.data<T>();
  const T* g = u.gradient.data<T>();
  parallel_for(u.weight.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    change_weights<T>(u.weight, begin, One{}, end - begin,
                      [&](T* p, One, int64_t at, int64_t count) {
                        at += begin;
                        update_run(p, m + at, v + at, g + at, c, count);
                      });
  });
}

void update_cpu(const AdamWUpdate& u) {
  if (u.weight.dtype() == DType::f64) return update_typed<double>(u);
  update_typed<float>(u);
}

STMOE_REGISTER_KERNELS(AdamWKernels, cpu, {update_cpu})

}  // namespace
}  // namespace stmoe
