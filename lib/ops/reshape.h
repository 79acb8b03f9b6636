// SPDX-License-Identifier: Apache-2.0
// The same elements in row-major order under another shape. A view: no element moves unless x is
// strided.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

// One dimension of `shape` may be -1. The gradient has x's shape.
Var reshape(const Var& x, const Shape& shape);

}  // namespace stmoe
