// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/experts.h"

#include "lib/base/registry.h"
#include "lib/ops/linear.h"

namespace stmoe {
namespace {

Var stacked_kernel(const ParameterScope& scope, int64_t num_experts, int64_t in, int64_t out,
                   const Initializer& initializer) {
  return scope.create("kernel", {num_experts, in, out}, initializer, /*stacked_dims=*/1,
                      WeightUse::product);
}

}  // namespace

ExpertBias parse_expert_bias(std::string_view name) {
  if (name == "none") return ExpertBias::none;
  if (name == "multiplicative") return ExpertBias::multiplicative;
  if (name == "additive") return ExpertBias::additive;
  fail_unknown_name("expert bias", name, {"none", "multiplicative", "additive"});
}

Experts::Experts(const ParameterScope& scope, int64_t num_experts, const ExpertShape& shape,
                 double dropout)
    : activation_(shape.activation),
      bias_(shape.bias),
      // Rows are tokens of any sequence: nothing along which a mask could be shared.
      hidden_dropout_(scope, "hidden", {dropout, /*is_shared_along_length=*/false}) {
  const bool has_gate = is_gated(shape.activation);
  wi_EDF_ = stacked_kernel(scope / (has_gate ? "wi_0" : "wi"), num_experts, shape.d_model,
                           shape.d_ff, shape.wi);
  if (has_gate)
    wi_linear_EDF_ =
        stacked_kernel(scope / "wi_1", num_experts, shape.d_model, shape.d_ff, shape.wi);
  wo_EFD_ = stacked_kernel(scope / "wo", num_experts, shape.d_ff, shape.d_model, shape.wo);
  if (bias_ != ExpertBias::none)
    bias_EF_ = scope.create("bias", {num_experts, shape.d_ff},
                            Initializer::constant(bias_ == ExpertBias::multiplicative ? 1.0 : 0.0),
                            /*stacked_dims=*/1);
}

// Dropout comes last: with a bias it is that op's.
Var Experts::hidden(const Var& rows_RD, const DispatchPlan& plan,
                    const HiddenDropout& dropout) const {
  const Var gate_RF = expert_linear(rows_RD, wi_EDF_, plan.ranges);
  const Var linear_RF =
      is_gated(activation_) ? expert_linear(rows_RD, wi_linear_EDF_, plan.ranges) : Var();
  if (bias_ == ExpertBias::none) return activate(activation_, gate_RF, linear_RF, dropout);
  const Var active_RF = activate(activation_, gate_RF, linear_RF, {{}, plan.entry_R});
  return expert_bias(active_RF, bias_EF_, plan.first_row_E1, bias_, dropout);
}

Var Experts::forward(const Var& rows_RD, const DispatchPlan& plan, int64_t first_entry,
                     const ForwardContext& context) const {
  HiddenDropout dropout = {hidden_dropout_.options(context), plan.entry_R};
  dropout.dropout.first_row = first_entry;
  return expert_linear(hidden(rows_RD, plan, dropout), wo_EFD_, plan.ranges);
}

}  // namespace stmoe
