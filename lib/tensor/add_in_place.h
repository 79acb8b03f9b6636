// SPDX-License-Identifier: Apache-2.0
// The one arithmetic that the tape itself needs: summing the gradients of a value that is used more
// than once.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct AddInPlaceKernels {
  static constexpr const char* kOp = "add_in_place";
  void (*add)(const Tensor& into, const Tensor& term);
};

// into += term; same shape and element type, contiguous.
void add_in_place(const Tensor& into, const Tensor& term);

}  // namespace stmoe
