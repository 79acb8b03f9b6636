// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/rms_norm.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/gradient_buffer.h"

namespace stmoe {

Var rms_norm(const Var& x, const Var& scale_D, double eps) {
  OpScope scope("rms_norm", OpScope::Pass::forward);
  STMOE_CHECK(x.rank() >= 1 && x.dim(-1) >= 1 && is_floating(x.dtype()), "rms_norm: x is {} {}",
              name_of(x.dtype()), x.shape().text());
  const int64_t width = x.dim(-1);
  const DType statistics = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  STMOE_CHECK(scale_D.shape() == Shape{width} && scale_D.dtype() == statistics,
              "rms_norm: scale is {} {}, expected {} [{}]", name_of(scale_D.dtype()),
              scale_D.shape().text(), name_of(statistics), width);
  const Tensor input = x.value().contiguous().reshape({x.numel() / width, width});
  const Tensor scale = scale_D.value().contiguous();
  const Tensor y = Tensor::empty_like(input);
  const Tensor rstd = Tensor::empty({input.dim(0)}, statistics, y.device());
  kernels<RmsNormKernels>(y.device()).forward(y, rstd, input, scale, eps);
  return record("rms_norm", y.reshape(x.shape()), {x, scale_D},
                [input, scale, rstd](const Tensor& dy) -> std::vector<Tensor> {
                  const Tensor dx = gradient_buffer(dy), dscale = Tensor::empty_like(scale);
                  kernels<RmsNormKernels>(dy.device())
                      .backward(dx.reshape(input.shape()), dscale, dy.reshape(input.shape()), input,
                                scale, rstd);
                  return {dx, dscale};
                });
}

}  // namespace stmoe
