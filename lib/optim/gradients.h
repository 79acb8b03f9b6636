// SPDX-License-Identifier: Apache-2.0
// What is done to all gradients together before an update. Sums are in f64 over fixed chunks: the
// same bits with any number of threads. What returns numbers waits for the device, once.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "lib/autograd/parameter.h"

namespace stmoe {

struct GradientKernels {
  static constexpr const char* kOp = "gradients";
  // sums[i] = the sum of squares of values[i]; sums f64.
  void (*sums_of_squares)(const Tensor& sums, std::span<const Tensor> values);
  void (*scale)(const Tensor& values, double factor);
};

// Of each of some contiguous tensors on one device: f64, there.
Tensor sums_of_squares(std::span<const Tensor> values);
double sum_of_squares(const Tensor& values);

// The index of the first tensor that holds a NaN or an infinity.
std::optional<size_t> first_non_finite(std::span<const Tensor> values);

// The L2 norm over all gradients; parameters without one count as zero.
double global_gradient_norm(const ParameterList& parameters);

// Every gradient times `factor`, in place.
void scale_gradients(const ParameterList& parameters, double factor);

// The name of the first parameter whose gradient holds a NaN or an infinity.
std::optional<std::string> first_non_finite_gradient(const ParameterList& parameters);

void clear_gradients(const ParameterList& parameters);

}  // namespace stmoe
