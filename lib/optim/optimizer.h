// SPDX-License-Identifier: Apache-2.0
// What turns gradients into new weights. An optimizer is a plug-in chosen by the recipe's
// `optimizer.kind`.
#pragma once

#include <memory>
#include <vector>

#include "lib/autograd/parameter.h"
#include "lib/base/registry.h"
#include "lib/config/config.h"
#include "lib/optim/weight_update.h"

namespace stmoe {

class Optimizer {
 public:
  struct Factory {
    ConfigBox (*make_config)();
    // State is made for exactly these parameters, on the heap.
    std::unique_ptr<Optimizer> (*make)(const ConfigBox& config, const ParameterList& parameters);
  };
  static constexpr const char* kKind = "optimizer";

  virtual ~Optimizer() = default;
  // Changes the weights in place by their gradients, and their rounded copies (Var::rounded) with
  // them; `step` counts updates from 0. A parameter
  // without a gradient keeps its value and state. Gradients are only read.
  virtual void update(const ParameterList& parameters, double learning_rate, int64_t step) = 0;
  // Everything that a checkpoint must hold: "<parameter>/<slot>", in the parameters' order; views
  // of the live state.
  virtual std::vector<NamedTensor> state() const = 0;
};

std::unique_ptr<Optimizer> make_optimizer(const Choice<Optimizer>& choice,
                                          const ParameterList& parameters);

// The weight of a parameter in update `step`.
UpdatedWeight updated_weight(const Var& value, int64_t step);

// For the profile: an update reads each gradient and reads and writes each weight and its state.
void count_update_bytes(const Optimizer& optimizer, const ParameterList& parameters);

}  // namespace stmoe
