// SPDX-License-Identifier: Apache-2.0
// The tensors of the optimizer goldens (scripts/golden/adafactor.py, adamw.py), made by a formula
// instead of stored: p[i] = 0.5 cos(0.23 i + c), g[step][i] = sin(0.37 i + 1.3 step + c) (1 + 0.5
// cos(0.011 i)), computed in f64 and rounded; i is the flat index, c the number of the case.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <string_view>

#include "lib/autograd/parameter.h"
#include "lib/optim/optimizer.h"

namespace stmoe::test {

inline Tensor formula_weight(const Shape& shape, int number, DType dtype = DType::f32) {
  Tensor values = Tensor::persistent(shape, DType::f64);
  auto span = values.span<double>();
  for (size_t i = 0; i < span.size(); ++i)
    span[i] = 0.5 * std::cos(0.23 * static_cast<double>(i) + number);
  return values.to(dtype);
}

inline Tensor formula_gradient(const Shape& shape, int number, int64_t step, double factor = 1,
                               DType dtype = DType::f32) {
  Tensor values = Tensor::persistent(shape, DType::f64);
  auto span = values.span<double>();
  for (size_t i = 0; i < span.size(); ++i) {
    const double at = static_cast<double>(i);
    span[i] = factor * std::sin(0.37 * at + 1.3 * static_cast<double>(step) + number) *
              (1 + 0.5 * std::cos(0.011 * at));
  }
  return values.to(dtype);
}

// An optimizer by its recipe section, as in "{kind: adafactor, beta1: 0.9}".
struct OptimizerRecipe {
  Choice<Optimizer> optimizer{"adafactor"};
  void visit(auto& v) { v("optimizer", optimizer, "what turns gradients into weights"); }
};

inline std::unique_ptr<Optimizer> optimizer_of(const std::string& section,
                                               const ParameterList& parameters) {
  const auto recipe = parse_config<OptimizerRecipe>("optimizer: " + section, "test.yaml");
  return make_optimizer(recipe.optimizer, parameters);
}

inline Tensor find_state(const Optimizer& optimizer, std::string_view name) {
  for (const NamedTensor& state : optimizer.state())
    if (state.name == name) return state.tensor;
  return {};
}

}  // namespace stmoe::test
