// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/moe_layer.h"

#include "lib/ops/combine.h"
#include "lib/ops/reshape.h"

namespace stmoe {

MoeLayer::MoeLayer(const MoeConfig& config, StackKind stack, const ExpertShape& shape,
                   const ParameterScope& scope)
    : router_(config, stack, shape.d_model, shape.router, scope),
      experts_(scope / "experts", config.num_experts, shape,
               config.expert_dropout < 0 ? shape.dropout : config.expert_dropout) {}

MoeLayer::Output MoeLayer::forward(const Var& x_BLD, const Tensor& mask_BL,
                                   const ForwardContext& context, const Tensor& token_id_BL) const {
  LayerRouter::Dispatched in = router_.forward(x_BLD, mask_BL, context, token_id_BL);
  const Var rows_RD =
      experts_.forward(std::exchange(in.rows_RD, Var()), in.plan, in.first_entry, context);
  return {reshape(combine(rows_RD, in.routing.weight_NK, in.plan), x_BLD.shape()),
          in.routing.load_balance_loss, in.routing.router_z_loss, in.routing.balance,
          in.routing.tally};
}

}  // namespace stmoe
