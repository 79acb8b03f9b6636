// SPDX-License-Identifier: Apache-2.0
// The gradient of relu is taken from its result, which the next product keeps anyway. gelu(a) = a
// s(a) with s(a) = (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), u = sqrt(2/pi)(a + 0.044715 a^3): one
// exponential.
#include "lib/ops/activation.h"

#include <numbers>

#include "lib/ops/cpu/elementwise.h"
#include "lib/ops/cpu/vector_math.h"

namespace stmoe {
namespace {

template <class C>
struct Gelu {
  static constexpr C kCubic = C(0.044715);
  static constexpr C kTwiceRoot =
      C(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);  // 2 sqrt(2/pi)
  static C sigmoid(C a) { return 1 / (1 + vector_exp(-kTwiceRoot * a * (1 + kCubic * a * a))); }
  static C value(C a) { return a * sigmoid(a); }
  static C slope(C a, C s) { return s + a * s * (1 - s) * kTwiceRoot * (1 + 3 * kCubic * a * a); }
};

void relu_forward(const Tensor& y, const Tensor& x) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        x.numel(), y.data<T>(), [](C a) { return a < 0 ? C(0) : a; }, x.data<T>());
  });
}

void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        y.numel(), dx.data<T>(), [](C d, C result) { return result > 0 ? d : C(0); }, dy.data<T>(),
        y.data<T>());
  });
}

void geglu_forward(const Tensor& y, const Tensor& gate, const Tensor& x) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        x.numel(), y.data<T>(), [](C a, C b) { return Gelu<C>::value(a) * b; }, gate.data<T>(),
        x.data<T>());
  });
}

void geglu_backward(const Tensor& dgate, const Tensor& dx, const Tensor& dy, const Tensor& gate,
                    const Tensor& x) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    T *dg = dgate.data<T>(), *db = dx.data<T>();
    const T *d = dy.data<T>(), *g = gate.data<T>(), *b = x.data<T>();
    parallel_for(x.numel(), 1 << 14, [=](int64_t begin, int64_t end) {
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) {
        const C a = static_cast<C>(g[i]), gradient = static_cast<C>(d[i]);
        const C s = Gelu<C>::sigmoid(a);
        dg[i] = static_cast<T>(gradient * static_cast<C>(b[i]) * Gelu<C>::slope(a, s));
        db[i] = static_cast<T>(gradient * a * s);
      }
    });
  });
}

STMOE_REGISTER_KERNELS(ReluKernels, cpu, {relu_forward, relu_backward})
STMOE_REGISTER_KERNELS(GegluKernels, cpu, {geglu_forward, geglu_backward})

}  // namespace

}  // namespace stmoe
