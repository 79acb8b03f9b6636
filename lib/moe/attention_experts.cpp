// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/attention_experts.h"

#include "lib/ops/combine.h"
#include "lib/ops/linear.h"
#include "lib/ops/reshape.h"

namespace stmoe {
namespace {

Var make_kernel(const ParameterScope& scope, const MoeConfig& config,
                const AttentionExpertShape& shape, const Initializer& initializer) {
  return scope.create("kernel", {config.num_experts, shape.d_model, shape.inner}, initializer,
                      /*stacked_dims=*/1, WeightUse::product);
}

}  // namespace

AttentionExperts::AttentionExperts(const MoeConfig& config, StackKind stack,
                                   const AttentionExpertShape& shape, const ParameterScope& scope)
    : router_(config, stack, shape.d_model, shape.router, scope),
      query_EDI_(make_kernel(scope / "experts" / "query", config, shape, shape.query)),
      key_value_EDI_(make_kernel(scope / "experts" / "key_value", config, shape, shape.key_value)) {
}

AttentionExperts::Output AttentionExperts::forward(const Var& x_BLD, const Tensor& mask_BL,
                                                   const ForwardContext& context,
                                                   const Tensor& token_id_BL) const {
  const auto [rows_RD, plan, first_entry, routing] =
      router_.forward(x_BLD, mask_BL, context, token_id_BL);
  const auto project = [&](const Var& kernel_EDI) {
    const Var rows_RI = expert_linear(rows_RD, kernel_EDI, plan.ranges);
    return reshape(combine(rows_RI, routing.weight_NK, plan),
                   {x_BLD.dim(0), x_BLD.dim(1), rows_RI.dim(1)});
  };
  return {
      project(query_EDI_),
      project(key_value_EDI_),
      {Var(), routing.load_balance_loss, routing.router_z_loss, routing.balance, routing.tally}};
}

}  // namespace stmoe
