// SPDX-License-Identifier: Apache-2.0
// A sparse feed-forward layer (Fedus et al. 2021, figure 2): the router sends each token to a few
// experts, their results come back weighted. The norm before and the residual around belong to the
// caller: a token that every expert dropped gets 0 here and passes by the residual. Groups and
// capacity: layer_router.h. B batch, L length, D width.
#pragma once

#include "lib/moe/experts.h"
#include "lib/moe/layer_router.h"

namespace stmoe {

class MoeLayer {
 public:
  // Makes router/... and experts/... under `scope`. The config is resolved.
  MoeLayer(const MoeConfig& config, StackKind stack, const ExpertShape& shape,
           const ParameterScope& scope);

  struct Output {
    Var y_BLD;  // shape and type of x
    Var load_balance_loss,
        router_z_loss;     // one element each, f32 (f64 for f64), without coefficients
    BalanceParts balance;  // see Routing
    RoutingTally tally;
  };
  // As LayerRouter::forward.
  Output forward(const Var& x_BLD, const Tensor& mask_BL, const ForwardContext& context,
                 const Tensor& token_id_BL = Tensor()) const;

 private:
  LayerRouter router_;
  Experts experts_;
};

}  // namespace stmoe
