// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cuda/device/map.h"
#include "lib/ops/softplus.h"

namespace stmoe::gpu {
namespace {

template <class C>
struct Softplus {
  C offset;
  static constexpr int kInputs = 1, kOutputs = 1;
  // ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), which does not overflow.
  STMOE_METHOD void of(C* y, const C* x) const {
    y[0] = (x[0] > C(0) ? x[0] : C(0)) + std::log1p(std::exp(-std::abs(x[0]))) + offset;
  }
};

struct SoftplusGradient {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* dx, const C* dy_x) {
    dx[0] = dy_x[0] / (C(1) + std::exp(-dy_x[1]));
  }
};

void forward(const Tensor& y, const Tensor& x, double offset) {
  visit_wide(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<Softplus<T>, T>({y.data<T>()}, {x.data<T>()}, x.numel(), {static_cast<T>(offset)});
  });
}

void backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  visit_wide(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<SoftplusGradient, T>({dx.data<T>()}, {dy.data<T>(), x.data<T>()}, x.numel(), {});
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(SoftplusKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
