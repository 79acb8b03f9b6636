// SPDX-License-Identifier: Apache-2.0
// Functions of one number, by the formulas of the CPU kernels (lib/ops/cpu). In f32 exp is the
// hardware's (2 + |x| units in the last place), in f64 the library's.
#pragma once

#include <cmath>
#include <numbers>

#include "cuda/device/device.h"

namespace stmoe::gpu {

#if defined(__CUDACC__)
STMOE_DEVICE float fast_exp(float x) { return __expf(x); }
STMOE_DEVICE float fast_divide(float a, float b) { return __fdividef(a, b); }
// 2^x to 2 units in the last place; 0 where it would be less than 2^-126.
STMOE_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
STMOE_DEVICE float fast_exp(float x) { return std::exp(x); }
STMOE_DEVICE float fast_divide(float a, float b) { return a / b; }
STMOE_DEVICE float fast_exp2(float x) { return std::exp2(x); }
#endif
STMOE_DEVICE double fast_exp(double x) { return std::exp(x); }
STMOE_DEVICE double fast_divide(double a, double b) { return a / b; }

// 1 / sqrt(x).
template <class C>
STMOE_DEVICE C reciprocal_root(C x) {
  return C(1) / std::sqrt(x);
}

// gelu(a) = a s(a), s(a) = (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)), u = sqrt(2/pi) (a + 0.044715
// a^3).
template <class C>
struct Gelu {
  static constexpr C kCubic = C(0.044715);
  static constexpr C kTwiceRoot = C(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);

  // fast_divide is 0 for divisors above 2^126, where s is 0 to begin with.
  STMOE_DEVICE C sigmoid(C a) {
    return fast_divide(C(1), C(1) + fast_exp(-kTwiceRoot * a * (C(1) + kCubic * a * a)));
  }
  STMOE_DEVICE C value(C a) { return a * sigmoid(a); }
  // d gelu / da, s = sigmoid(a).
  STMOE_DEVICE C slope(C a, C s) {
    return s + a * s * (C(1) - s) * kTwiceRoot * (C(1) + C(3) * kCubic * a * a);
  }
};

}  // namespace stmoe::gpu
