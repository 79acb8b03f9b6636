// SPDX-License-Identifier: Apache-2.0
// The experts of a layer: feed-forward networks of one shape with their own kernels, run as batched
// products over [experts, rows, width]. E experts, R rows per expert, D width, F hidden.
#pragma once

#include "lib/nn/feed_forward.h"

namespace stmoe {

// One expert, and how the layer's weights start.
struct ExpertShape {
  int64_t d_model = 0, d_ff = 0;
  Activation activation = Activation::relu;
  Initializer wi, wo, router;
  double dropout = 0;  // of the hidden activation, unless MoeConfig::expert_dropout says otherwise
};

class Experts {
 public:
  // Makes wi/kernel (or wi_0/kernel and wi_1/kernel) and wo/kernel, experts stacked in front.
  Experts(const ParameterScope& scope, int64_t num_experts, const ExpertShape& shape,
          double dropout);
  Var forward(const Var& rows_ERD, const ForwardContext& context) const;

 private:
  Var wi_EDF_;         // the only input projection, or GELU's branch
  Var wi_linear_EDF_;  // GEGLU's other branch, or undefined
  Var wo_EFD_;
  Activation activation_;
  DropoutSite hidden_dropout_;
};

}  // namespace stmoe
