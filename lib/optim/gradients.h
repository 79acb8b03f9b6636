// SPDX-License-Identifier: Apache-2.0
// What is done to all gradients together before an update. Sums are in f64 over fixed chunks: the
// same bits with any number of threads.
#pragma once

#include <optional>
#include <string>

#include "lib/autograd/parameter.h"

namespace stmoe {

struct GradientKernels {
  static constexpr const char* kOp = "gradients";
  double (*sum_of_squares)(const Tensor& values);
  void (*scale)(const Tensor& values, double factor);
};

// The sum of squares of a contiguous tensor.
double sum_of_squares(const Tensor& values);

// The L2 norm over all gradients; parameters without one count as zero.
double global_gradient_norm(const ParameterList& parameters);

// Every gradient times `factor`, in place.
void scale_gradients(const ParameterList& parameters, double factor);

// The name of the first parameter whose gradient holds a NaN or an infinity.
std::optional<std::string> first_non_finite_gradient(const ParameterList& parameters);

void clear_gradients(const ParameterList& parameters);

}  // namespace stmoe
