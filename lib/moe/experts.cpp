// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/experts.h"

#include "lib/ops/activation.h"
#include "lib/ops/linear.h"

namespace stmoe {
namespace {

Var stacked_kernel(const ParameterScope& scope, int64_t num_experts, int64_t in, int64_t out,
                   const Initializer& initializer) {
  return scope.create("kernel", {num_experts, in, out}, initializer, /*stacked_dims=*/1);
}

}  // namespace

Experts::Experts(const ParameterScope& scope, int64_t num_experts, const ExpertShape& shape,
                 double dropout)
    : activation_(shape.activation),
      // Rows are tokens of any sequence: nothing along which a mask could be shared.
      hidden_dropout_(scope, "hidden", {dropout, /*is_shared_along_length=*/false}) {
  const bool is_gated = shape.activation == Activation::geglu;
  wi_EDF_ = stacked_kernel(scope / (is_gated ? "wi_0" : "wi"), num_experts, shape.d_model,
                           shape.d_ff, shape.wi);
  if (is_gated)
    wi_linear_EDF_ =
        stacked_kernel(scope / "wi_1", num_experts, shape.d_model, shape.d_ff, shape.wi);
  wo_EFD_ = stacked_kernel(scope / "wo", num_experts, shape.d_ff, shape.d_model, shape.wo);
}

Var Experts::forward(const Var& rows_RD, const DispatchPlan& plan, int64_t first_entry,
                     const ForwardContext& context) const {
  HiddenDropout dropout = {hidden_dropout_.options(context), plan.entry_R};
  dropout.dropout.first_row = first_entry;
  const Var gate_RF = expert_linear(rows_RD, wi_EDF_, plan.first_row_E1);
  const Var hidden_RF =
      activation_ == Activation::geglu
          ? geglu(gate_RF, expert_linear(rows_RD, wi_linear_EDF_, plan.first_row_E1), dropout)
          : relu(gate_RF, dropout);
  return expert_linear(hidden_RF, wo_EFD_, plan.first_row_E1);
}

}  // namespace stmoe
