// SPDX-License-Identifier: Apache-2.0
// A weight as an optimizer's kernel changes it.
#pragma once

#include "lib/base/random.h"
#include "lib/tensor/weight_tensor.h"

namespace stmoe {

struct UpdatedWeight {
  WeightTensor weight;
  Tensor rounded;  // of a plain weight: bf16, the new weight once more; or undefined
  // bf16_stochastic: of this update; element i takes the word at first_place + i.
  RandomKey rounding_key = {};
  int64_t first_place = 0;

  int64_t numel() const { return weight.value.numel(); }
  DType dtype() const { return weight.dtype(); }
};

}  // namespace stmoe
