// SPDX-License-Identifier: Apache-2.0
// Element-wise sums and products of equal shapes, and sums over everything.
#pragma once

#include <span>
#include <vector>

#include "lib/autograd/var.h"

namespace stmoe {

struct AddKernels {
  static constexpr const char* kOp = "add";
  // The result may be an operand.
  void (*add)(const Tensor& y, const Tensor& a, const Tensor& b);
  void (*multiply)(const Tensor& y, const Tensor& a, const Tensor& b);
  void (*scale)(const Tensor& y, const Tensor& x, double c);
  void (*weighted_sum)(const Tensor& y, std::span<const Tensor> terms,
                       std::span<const double> coefficients);
  void (*sum)(const Tensor& y, const Tensor& x);
  // Every element of y is the one of `value`.
  void (*spread)(const Tensor& y, const Tensor& value);
};

// x + y, same shape and type.
Var add(const Var& x, const Var& y);
// x * y, same shape and type.
Var multiply(const Var& x, const Var& y);
// c * x.
Var scale(const Var& x, double c);
// sum_i c_i x_i of one-element values in f32 (f64 when a term is): the total loss. `terms` is not
// empty; the result has shape [1].
Var weighted_sum(const std::vector<Var>& terms, const std::vector<double>& coefficients);
// The sum of all elements, shape [1], f32 accumulated in f64 (f64 for f64).
Var sum(const Var& x);
// x rounded to another floating type; the gradient is rounded back.
Var cast(const Var& x, DType dtype);

}  // namespace stmoe
