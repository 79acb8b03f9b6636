// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/optimizer.h"

#include "lib/base/profile.h"

namespace stmoe {

std::unique_ptr<Optimizer> make_optimizer(const Choice<Optimizer>& choice,
                                          const ParameterList& parameters) {
  return Registry<Optimizer>::get(choice.kind()).make(choice.box(), parameters);
}

UpdatedWeight updated_weight(const Var& value, int64_t step) {
  return {value.weight(), value.rounded(), value.rounding_key().fold(static_cast<uint64_t>(step))};
}

void count_update_bytes(const Optimizer& optimizer, const ParameterList& parameters) {
  if (!is_profiling()) return;
  size_t bytes = 0;
  for (const Parameter& parameter : parameters)
    if (parameter.value.grad().defined())
      bytes += parameter.value.grad().bytes() + 2 * parameter.value.weight().bytes();
  for (const NamedTensor& state : optimizer.state()) bytes += 2 * state.tensor.bytes();
  count_bytes(static_cast<double>(bytes));
}

}  // namespace stmoe
