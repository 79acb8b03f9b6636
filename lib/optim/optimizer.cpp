// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/optimizer.h"

namespace stmoe {

std::unique_ptr<Optimizer> make_optimizer(const Choice<Optimizer>& choice,
                                          const ParameterList& parameters) {
  return Registry<Optimizer>::get(choice.kind()).make(choice.box(), parameters);
}

}  // namespace stmoe
