// SPDX-License-Identifier: Apache-2.0
// y = x * rsqrt(mean(x^2) + eps) * scale over the last dimension; statistics in f32 (f64 for f64),
// no mean subtraction. Zhang and Sennrich 2019; T5's layer norm (reference/architecture.md 1).
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct RmsNormKernels {
  static constexpr const char* kOp = "rms_norm";
  // rstd_N: the reciprocal root of each row, saved for the backward pass.
  void (*forward)(const Tensor& y_ND, const Tensor& rstd_N, const Tensor& x_ND,
                  const Tensor& scale_D, double eps);
  // dx may be dy.
  void (*backward)(const Tensor& dx_ND, const Tensor& dscale_D, const Tensor& dy_ND,
                   const Tensor& x_ND, const Tensor& scale_D, const Tensor& rstd_N);
};

// x [..., D] floating; scale_D f32 (f64 when x is f64), gradient of scale in its own type.
Var rms_norm(const Var& x, const Var& scale_D, double eps = 1e-6);

}  // namespace stmoe
