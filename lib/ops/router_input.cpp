// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_input.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

Var router_input(const Var& x_ND, const RouterInputOptions& options) {
  OpScope scope("router_input", OpScope::Pass::forward);
  STMOE_CHECK(x_ND.rank() == 2 && is_floating(x_ND.dtype()),
              "router_input: x is {} {}, expected floating [tokens, width]", name_of(x_ND.dtype()),
              x_ND.shape().text());
  STMOE_CHECK(options.jitter >= 0 && options.jitter < 1, "router_input: jitter {}", options.jitter);
  RouterInputOptions plain = options;
  if (plain.mask_N.defined()) {
    STMOE_CHECK(plain.mask_N.numel() == x_ND.dim(0) && plain.mask_N.dtype() == DType::i32,
                "router_input: mask {} for {} tokens", plain.mask_N.shape().text(), x_ND.dim(0));
    plain.mask_N = plain.mask_N.contiguous();
  }
  const DType from = x_ND.dtype(), wide = from == DType::f64 ? DType::f64 : DType::f32;
  if (from == wide && plain.jitter == 0 && !plain.mask_N.defined()) return x_ND;
  const Tensor x = x_ND.value().contiguous();
  const Tensor y_ND = Tensor::empty(x.shape(), wide, x.device());
  kernels<RouterInputKernels>(x.device()).apply(y_ND, x, plain);
  return record("router_input", y_ND, {x_ND},
                [plain, from](const Tensor& dy_ND) -> std::vector<Tensor> {
                  const Tensor dx_ND = Tensor::empty(dy_ND.shape(), from, dy_ND.device());
                  kernels<RouterInputKernels>(dy_ND.device()).apply(dx_ND, dy_ND, plain);
                  return {dx_ND};
                });
}

}  // namespace stmoe
