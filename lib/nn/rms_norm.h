// SPDX-License-Identifier: Apache-2.0
// T5's layer norm: no mean subtraction, no bias, epsilon 1e-6, statistics in f32 (f64).
#pragma once

#include "lib/nn/parameters.h"
#include "lib/nn/residual.h"

namespace stmoe {

class RmsNorm {
 public:
  RmsNorm(const ParameterScope& scope, int64_t width, const Initializer& initializer)
      : scale_D_(scope.create("scale", {width}, initializer)) {}
  // The stream's sum and its norm, both of the shape and type of x.
  ResidualNorm forward(const Residual& x) const {
    return residual_norm(x.x_BLD, x.branch_BLD, scale_D_, x.dropout);
  }

 private:
  Var scale_D_;
};

}  // namespace stmoe
