// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

// Where an element-wise gradient goes: over dy when the closure is its last owner, else into a new
// tensor.
inline Tensor gradient_buffer(const Tensor& dy) {
  return dy.is_shared() ? Tensor::empty_like(dy) : dy;
}

}  // namespace stmoe
