// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dropout.h"

#include <algorithm>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/gradient_buffer.h"

namespace stmoe {

Var dropout(const Var& x, const Dropout& dropout) {
  OpScope scope("dropout", OpScope::Pass::forward);
  STMOE_CHECK(is_floating(x.dtype()), "dropout: x is {}", name_of(x.dtype()));
  STMOE_CHECK(dropout.rate >= 0 && dropout.rate < 1, "dropout: rate {}", dropout.rate);
  STMOE_CHECK(dropout.broadcast_dim >= -1 && dropout.broadcast_dim < std::max(1, x.rank()),
              "dropout: broadcast dimension {} of {}", dropout.broadcast_dim, x.shape().text());
  if (dropout.rate == 0) return x;
  const Tensor input = x.value().contiguous();
  const Tensor y = Tensor::empty_like(input);
  kernels<DropoutKernels>(y.device()).apply(y, input, dropout);
  return record("dropout", y, {x}, [dropout](const Tensor& dy) -> std::vector<Tensor> {
    const Tensor dx = gradient_buffer(dy);
    kernels<DropoutKernels>(dy.device()).apply(dx, dy, dropout);
    return {dx};
  });
}

}  // namespace stmoe
