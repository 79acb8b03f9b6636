// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/activation.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/gradient_buffer.h"

namespace stmoe {

Var relu(const Var& x) {
  OpScope scope("relu", OpScope::Pass::forward);
  STMOE_CHECK(is_floating(x.dtype()), "relu: x is {}", name_of(x.dtype()));
  const Tensor input = x.value().contiguous();
  const Tensor y = Tensor::empty_like(input);
  kernels<ReluKernels>(y.device()).forward(y, input);
  return record("relu", y, {x}, [y](const Tensor& dy) -> std::vector<Tensor> {
    const Tensor dx = gradient_buffer(dy);
    kernels<ReluKernels>(y.device()).backward(dx, dy, y);
    return {dx};
  });
}

Var geglu(const Var& gate, const Var& x) {
  OpScope scope("geglu", OpScope::Pass::forward);
  STMOE_CHECK(gate.shape() == x.shape() && gate.dtype() == x.dtype() && is_floating(x.dtype()),
              "geglu: gate is {} {}, x is {} {}", name_of(gate.dtype()), gate.shape().text(),
              name_of(x.dtype()), x.shape().text());
  const Tensor g = gate.value().contiguous(), b = x.value().contiguous();
  const Tensor y = Tensor::empty_like(b);
  kernels<GegluKernels>(y.device()).forward(y, g, b);
  return record("geglu", y, {gate, x}, [g, b](const Tensor& dy) -> std::vector<Tensor> {
    const Tensor dgate = Tensor::empty_like(g), dx = gradient_buffer(dy);
    kernels<GegluKernels>(g.device()).backward(dgate, dx, dy, g, b);
    return {dgate, dx};
  });
}

}  // namespace stmoe
