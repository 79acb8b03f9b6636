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

Var Experts::forward(const Var& rows_ERD, const ForwardContext& context) const {
  const Var gate_ERF = expert_linear(rows_ERD, wi_EDF_);
  const HiddenDropout dropout = {hidden_dropout_.options(context), {}};
  const Var hidden_ERF = activation_ == Activation::geglu
                             ? geglu(gate_ERF, expert_linear(rows_ERD, wi_linear_EDF_), dropout)
                             : relu(gate_ERF, dropout);
  return expert_linear(hidden_ERF, wo_EFD_);
}

}  // namespace stmoe
