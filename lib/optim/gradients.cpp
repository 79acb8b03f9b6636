// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include <cmath>

#include "lib/base/profile.h"

namespace stmoe {

double sum_of_squares(const Tensor& values) {
  STMOE_CHECK(values.is_contiguous(), "sum_of_squares: strided values");
  return kernels<GradientKernels>(values.device()).sum_of_squares(values);
}

double global_gradient_norm(const ParameterList& parameters) {
  OpScope scope("gradient_norm", OpScope::Pass::forward);
  double total = 0;
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad().defined()) continue;
    total += sum_of_squares(parameter.value.grad());
    count_bytes(static_cast<double>(parameter.value.grad().bytes()));
  }
  return std::sqrt(total);
}

void scale_gradients(const ParameterList& parameters, double factor) {
  OpScope scope("scale_gradients", OpScope::Pass::forward);
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad().defined()) continue;
    // The tape may have left one buffer as the gradient of two values.
    if (parameter.value.grad().is_shared())
      parameter.value.set_grad(parameter.value.grad().clone());
    kernels<GradientKernels>(parameter.value.device()).scale(parameter.value.grad(), factor);
    count_bytes(2.0 * static_cast<double>(parameter.value.grad().bytes()));
  }
}

std::optional<std::string> first_non_finite_gradient(const ParameterList& parameters) {
  for (const Parameter& parameter : parameters)
    if (parameter.value.grad().defined() && !std::isfinite(sum_of_squares(parameter.value.grad())))
      return parameter.name;
  return std::nullopt;
}

void clear_gradients(const ParameterList& parameters) {
  for (const Parameter& parameter : parameters) parameter.value.clear_grad();
}

}  // namespace stmoe
