// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/feed_forward.h"

#include "lib/base/registry.h"
#include "lib/ops/activation.h"

namespace stmoe {
namespace {

std::optional<Linear> linear_branch(const ParameterScope& scope, const FeedForwardShape& shape,
                                    const Initializer& initializer) {
  if (shape.activation == Activation::relu) return std::nullopt;
  return Linear(scope / "wi_1", shape.d_model, shape.d_ff, initializer);
}

}  // namespace

Activation parse_activation(std::string_view name) {
  if (name == "relu") return Activation::relu;
  if (name == "geglu") return Activation::geglu;
  fail_unknown_name("activation", name, {"relu", "geglu"});
}

FeedForward::FeedForward(const ParameterScope& scope, const FeedForwardShape& shape,
                         const Initializer& wi, const Initializer& wo, const DropoutPolicy& dropout)
    : wi_(scope / (shape.activation == Activation::relu ? "wi" : "wi_0"), shape.d_model, shape.d_ff,
          wi),
      wi_linear_(linear_branch(scope, shape, wi)),
      wo_(scope / "wo", shape.d_ff, shape.d_model, wo),
      hidden_dropout_(scope, "hidden", dropout) {}

Var FeedForward::forward(const Var& x_BLD, const ForwardContext& context) const {
  const Var gate_BLF = wi_.forward(x_BLD);
  const HiddenDropout dropout = {hidden_dropout_.options(context), {}};
  const Var hidden_BLF =
      wi_linear_ ? geglu(gate_BLF, wi_linear_->forward(x_BLD), dropout) : relu(gate_BLF, dropout);
  return wo_.forward(hidden_BLF);
}

}  // namespace stmoe
