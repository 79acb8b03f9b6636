// SPDX-License-Identifier: Apache-2.0
// The dense feed-forward layer: relu(x wi) wo (T5 1.0, Switch) or (gelu(x wi_0) * (x wi_1)) wo
// (T5 1.1); no bias, dropout on the hidden activation only.
#pragma once

#include <optional>

#include "lib/nn/dropout.h"
#include "lib/nn/linear.h"

namespace stmoe {

enum class Activation { relu, geglu };
// Throws UsageError listing the names.
Activation parse_activation(std::string_view name);

struct FeedForwardShape {
  int64_t d_model = 0, d_ff = 0;
  Activation activation = Activation::relu;
};

class FeedForward {
 public:
  // Makes wi/kernel (or wi_0/kernel and wi_1/kernel) and wo/kernel under `scope`.
  FeedForward(const ParameterScope& scope, const FeedForwardShape& shape, const Initializer& wi,
              const Initializer& wo, const DropoutPolicy& dropout);
  // x_BLD normalised -> the same shape and type.
  Var forward(const Var& x_BLD, const ForwardContext& context) const;

 private:
  Linear wi_;                        // the only input projection, or GELU's branch
  std::optional<Linear> wi_linear_;  // GEGLU's other branch
  Linear wo_;
  DropoutSite hidden_dropout_;
};

}  // namespace stmoe
