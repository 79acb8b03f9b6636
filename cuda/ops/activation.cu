// SPDX-License-Identifier: Apache-2.0
// Bytes of each element, b the type's: relu 2 b forward, 3 b backward; gelu likewise; geglu 3 b
// forward, 5 b backward. The kernels are those of cuda/device/map.h.
#include "cuda/device/map.h"
#include "cuda/device/math.h"
#include "lib/ops/activation.h"

namespace stmoe::gpu {
namespace {

struct Relu {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = x[0] < C(0) ? C(0) : x[0];  // a NaN stays
  }
};

template <class C>
struct ReluGradient {
  C factor;
  static constexpr int kInputs = 2, kOutputs = 1;
  STMOE_METHOD void of(C* dx, const C* dy_y) const {
    dx[0] = dy_y[1] > C(0) ? factor * dy_y[0] : C(0);
  }
};

struct GeluValue {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = Gelu<C>::value(x[0]);
  }
};

struct GeluGradient {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* dx, const C* dy_x) {
    dx[0] = dy_x[0] * Gelu<C>::slope(dy_x[1], Gelu<C>::sigmoid(dy_x[1]));
  }
};

// Of gate and x.
struct Geglu {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = Gelu<C>::value(x[0]) * x[1];
  }
};

// Of dy, gate and x: dgate and dx. The product is computed anew rather than saved.
struct GegluGradient {
  static constexpr int kInputs = 3, kOutputs = 2;
  template <class C>
  STMOE_DEVICE void of(C* dx, const C* x) {
    const C s = Gelu<C>::sigmoid(x[1]);
    dx[0] = x[0] * x[2] * Gelu<C>::slope(x[1], s);
    dx[1] = x[0] * x[1] * s;
  }
};

void relu_forward(const Tensor& y, const Tensor& x, const HiddenMask& mask) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<Relu, T>({y.data<T>()}, {x.data<T>()}, mask, {});
  });
}

void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y, double factor) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using F = ReluGradient<Compute<T>>;
    map_elements<F, T>({dx.data<T>()}, {dy.data<T>(), y.data<T>()}, y.numel(),
                       F{static_cast<Compute<T>>(factor)});
  });
}

void gelu_forward(const Tensor& y, const Tensor& x, const HiddenMask& mask) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<GeluValue, T>({y.data<T>()}, {x.data<T>()}, mask, {});
  });
}

void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const HiddenMask& mask) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<GeluGradient, T>({dx.data<T>()}, {dy.data<T>(), x.data<T>()}, mask, {});
  });
}

void geglu_forward(const Tensor& y, const Tensor& gate, const Tensor& x, const HiddenMask& mask) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<Geglu, T>({y.data<T>()}, {gate.data<T>(), x.data<T>()}, mask, {});
  });
}

void geglu_backward(const Tensor& dgate, const Tensor& dx, const Tensor& dy, const Tensor& gate,
                    const Tensor& x, const HiddenMask& mask) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<GegluGradient, T>({dgate.data<T>(), dx.data<T>()},
                                 {dy.data<T>(), gate.data<T>(), x.data<T>()}, mask, {});
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ReluKernels, STMOE_GPU, {gpu::relu_forward, gpu::relu_backward})
STMOE_REGISTER_KERNELS(GeluKernels, STMOE_GPU, {gpu::gelu_forward, gpu::gelu_backward})
STMOE_REGISTER_KERNELS(GegluKernels, STMOE_GPU, {gpu::geglu_forward, gpu::geglu_backward})

}  // namespace stmoe
