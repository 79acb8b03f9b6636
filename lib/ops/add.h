// SPDX-License-Identifier: Apache-2.0
// Element-wise sums and products of equal shapes, and sums over everything.
#pragma once

#include <vector>

#include "lib/autograd/var.h"

namespace stmoe {

// x + y, same shape and type.
Var add(const Var& x, const Var& y);
// x * y, same shape and type.
Var multiply(const Var& x, const Var& y);
// c * x.
Var scale(const Var& x, double c);
// sum_i c_i x_i of one-element values in f32 (or f64 when the terms are): the total loss. `terms` is not empty.
Var weighted_sum(const std::vector<Var>& terms, const std::vector<double>& coefficients);
// The sum of all elements, one element, f32 accumulated in f64 (f64 for f64).
Var sum(const Var& x);
// x rounded to another floating type; the gradient is rounded back.
Var cast(const Var& x, DType dtype);

}  // namespace stmoe
