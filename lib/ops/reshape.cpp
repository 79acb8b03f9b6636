// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/reshape.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

Var reshape(const Var& x, const Shape& shape) {
  OpScope scope("reshape", OpScope::Pass::forward);
  return record("reshape", x.value().contiguous().reshape(shape), {x},
                [before = x.shape()](const Tensor& dy) -> std::vector<Tensor> {
                  return {dy.contiguous().reshape(before)};
                });
}

}  // namespace stmoe
