// SPDX-License-Identifier: Apache-2.0
// Optimizers write the bf16 copies of the weights in the pass that writes the weights.
#include <catch2/catch.hpp>

#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {

TEST_CASE("every optimizer renews the rounded copies of the weights", "[optim]") {
  // Factored, factored along the other dimension, experts, vectors, too small to factor.
  const std::pair<Shape, int> kShapes[] = {{{257, 300}, 0}, {{300, 257, 2}, 0}, {{3, 130, 140}, 1},
                                           {{70001}, 0},    {{16, 200}, 0},     {{2, 3, 4}, 1}};
  for (const char* section :
       {"{kind: adamw}", "{kind: adafactor}", "{kind: adafactor, beta1: 0.9, weight_decay: 0.01}",
        "{kind: adafactor, factor_scope: tensor, scale_scope: tensor, clip_scope: tensor}"}) {
    ParameterList parameters;
    for (const auto& [shape, stacked] : kShapes) {
      const int number = static_cast<int>(parameters.size());
      parameters.push_back(
          {format("w{}", number), Var::leaf(formula_weight(shape, number)), stacked});
    }
    const auto optimizer = optimizer_of(section, parameters);
    for (int64_t step = 0; step < 2; ++step) {
      int number = 0;
      for (const Parameter& parameter : parameters) {
        parameter.value.keep_rounded();
        parameter.value.value_as(DType::bf16);
        parameter.value.set_grad(formula_gradient(parameter.value.shape(), number++, step));
      }
      optimizer->update(parameters, 0.01, step);
      for (const Parameter& parameter : parameters) {
        INFO(section << ", " << parameter.name);
        require_same_bits(parameter.value.rounded(), parameter.value.value().to(DType::bf16));
      }
    }
  }
}

}  // namespace stmoe::test
