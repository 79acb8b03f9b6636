// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cuda/device/map.h"
#include "lib/ops/sigmoid.h"

namespace stmoe::gpu {
namespace {

struct Sigmoid {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = C(1) / (C(1) + std::exp(-x[0]));
  }
};

struct SigmoidGradient {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* dx, const C* dy_y) {
    dx[0] = dy_y[0] * dy_y[1] * (C(1) - dy_y[1]);
  }
};

void forward(const Tensor& y, const Tensor& x) {
  visit_wide(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<Sigmoid, T>({y.data<T>()}, {x.data<T>()}, x.numel(), {});
  });
}

void backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  visit_wide(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<SigmoidGradient, T>({dx.data<T>()}, {dy.data<T>(), y.data<T>()}, y.numel(), {});
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(SigmoidKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
