// SPDX-License-Identifier: Apache-2.0
// T5's layer norm: no mean subtraction, no bias, epsilon 1e-6, statistics in f32 (f64).
#pragma once

#include "lib/nn/parameters.h"
#include "lib/ops/rms_norm.h"

namespace stmoe {

class RmsNorm {
 public:
  RmsNorm(const ParameterScope& scope, int64_t width, const Initializer& initializer)
      : scale_D_(scope.create("scale", {width}, initializer)) {}
  // x [..., D] -> the same shape and type.
  Var forward(const Var& x) const { return rms_norm(x, scale_D_); }

 private:
  Var scale_D_;
};

}  // namespace stmoe
