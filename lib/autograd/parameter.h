// SPDX-License-Identifier: Apache-2.0
// A trained weight: an f32 (or, in tests, f64) leaf, in any storage, with its checkpoint path.
// Order in a list is the model's order and is the same everywhere (optimizer, checkpoint, plan).
#pragma once

#include <string>
#include <vector>

#include "lib/autograd/var.h"

namespace stmoe {

struct Parameter {
  std::string name;  // "encoder/block_3/moe/experts/wi/kernel"
  Var value;
  // Leading dimensions that stack independent weights (1 for [experts, in, out] kernels, else 0):
  // optimizers may treat each slice as a weight of its own.
  int stacked_dims = 0;
};

// For a checkpoint.
inline NamedTensor named_weight(const Parameter& parameter) {
  const WeightTensor weight = parameter.value.weight();
  return {parameter.name, weight.value, weight.storage, weight.low};
}

using ParameterList = std::vector<Parameter>;

}  // namespace stmoe
