// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include <cmath>
#include <vector>

#include "lib/base/profile.h"

namespace stmoe {

Tensor sums_of_squares(std::span<const Tensor> values) {
  for (const Tensor& one : values)
    STMOE_CHECK(one.is_contiguous(), "sums_of_squares: strided values");
  const Device device = values.empty() ? Device::cpu : values[0].device();
  const Tensor sums = Tensor::empty({static_cast<int64_t>(values.size())}, DType::f64, device);
  if (!values.empty()) kernels<GradientKernels>(device).sums_of_squares(sums, values);
  return sums;
}

double sum_of_squares(const Tensor& values) { return sums_of_squares({&values, 1}).item(); }

std::optional<size_t> first_non_finite(std::span<const Tensor> values) {
  const Tensor sums = sums_of_squares(values).on(Device::cpu);
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(sums.span<double>()[i])) return i;
  return std::nullopt;
}

double global_gradient_norm(const ParameterList& parameters) {
  OpScope scope("gradient_norm", OpScope::Pass::forward);
  std::vector<Tensor> gradients;
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad().defined()) continue;
    gradients.push_back(parameter.value.grad());
    count_bytes(static_cast<double>(parameter.value.grad().bytes()));
  }
  double total = 0;
  const Tensor sums = sums_of_squares(gradients).on(Device::cpu);
  for (double sum : sums.span<double>()) total += sum;
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
  std::vector<Tensor> gradients;
  std::vector<std::string> names;
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad().defined()) continue;
    gradients.push_back(parameter.value.grad());
    names.push_back(parameter.name);
  }
  const auto first = first_non_finite(gradients);
  return first ? std::optional(names[*first]) : std::nullopt;
}

void clear_gradients(const ParameterList& parameters) {
  for (const Parameter& parameter : parameters) parameter.value.clear_grad();
}

}  // namespace stmoe
