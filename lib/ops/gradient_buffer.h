// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lib/base/profile.h"
#include "lib/tensor/tensor.h"

namespace stmoe {

// Where an element-wise gradient goes: over dy when the closure is its last owner, else into a new
// tensor.
inline Tensor gradient_buffer(const Tensor& dy) {
  if (dy.is_shared()) return Tensor::empty_like(dy);
  note_overwritten_gradient();
  return dy;
}

}  // namespace stmoe
