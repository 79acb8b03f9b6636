// SPDX-License-Identifier: Apache-2.0
// A dense layer without bias, y = x kernel; the kernel is stored [in, out].
#pragma once

#include "lib/nn/parameters.h"
#include "lib/ops/linear.h"

namespace stmoe {

class Linear {
 public:
  Linear(const ParameterScope& scope, int64_t in, int64_t out, const Initializer& initializer)
      : kernel_IO_(scope.create("kernel", {in, out}, initializer, 0, WeightUse::product)) {}
  // x [..., in] -> [..., out] in x's type, or in `result`.
  Var forward(const Var& x, std::optional<DType> result = std::nullopt) const {
    return linear(x, kernel_IO_, result);
  }
  const Var& kernel() const { return kernel_IO_; }

 private:
  Var kernel_IO_;
};

}  // namespace stmoe
