// SPDX-License-Identifier: Apache-2.0
// Adafactor (Shazeer and Stern 2018) as t5x and mesh-tensorflow run it (training.md 4). At update
// t, gradient g, in f32:
//   b2 = 1 - (t - step_offset + 1)^-decay_exponent,  s = max(RMS(param), minimum_scale),  G = g^2 +
//   1e-30 factored:    row = b2 row + (1 - b2) mean(G over columns),  column likewise
//                u = g * (row / mean(row))^-1/2 * column^-1/2
//   unfactored:  v = b2 v + (1 - b2) G,  u = g v^-1/2
//   u /= max(1, RMS(u) / clipping_threshold);  delta = learning_rate * s * u
//   with beta1 > 0:  m = beta1 m + (1 - beta1) delta;  delta = m
//   param = (1 - weight_decay) param - delta
// A weight is factored over its two largest dimensions when the smaller of them has at least
// min_dim_to_factor entries. Experts are stacked in one tensor; for each of factoring, RMS of the
// parameter and RMS of the update the scope says whether every expert is a weight of its own (t5x;
// factored whatever its size) or the stack is one (mesh-tensorflow).
#pragma once

#include <string>

#include "lib/optim/adafactor_kernels.h"
#include "lib/optim/optimizer.h"

namespace stmoe {

struct AdafactorConfig {
  double decay_exponent = 0.8;
  int64_t step_offset = 0;
  double clipping_threshold = 1.0;
  bool multiply_by_parameter_scale = true;
  double minimum_scale = 1e-3;
  int64_t min_dim_to_factor = 128;
  double beta1 = 0.0;
  double weight_decay = 0.0;
  std::string factor_scope = "expert";
  std::string scale_scope = "expert";
  std::string clip_scope = "expert";

  void visit(auto& v) {
    v("decay_exponent", decay_exponent, "second-moment decay: b2 = 1 - (t + 1)^-exponent",
      greater_than(0.0));
    v("step_offset", step_offset, "subtracted from the step in b2 (fine-tuning restarts it)",
      at_least(0));
    v("clipping_threshold", clipping_threshold, "largest RMS of an update; 0: no clipping",
      at_least(0.0));
    v("multiply_by_parameter_scale", multiply_by_parameter_scale,
      "the rate is relative to the RMS of each weight");
    v("minimum_scale", minimum_scale, "lower bound of that RMS", greater_than(0.0));
    v("min_dim_to_factor", min_dim_to_factor, "smallest dimension that is factored", at_least(1));
    v("beta1", beta1, "momentum; 0: none (no slot)", between(0.0, 0.9999));
    v("weight_decay", weight_decay, "share of the weight removed at each update",
      between(0.0, 0.9999));
    v("factor_scope", factor_scope, "factor each expert, or the stack of experts",
      one_of({"expert", "tensor"}));
    v("scale_scope", scale_scope, "RMS of the weight by expert, or over the stack",
      one_of({"expert", "tensor"}));
    v("clip_scope", clip_scope, "RMS of the update by expert, or over the stack",
      one_of({"expert", "tensor"}));
  }
  AdafactorRule rule() const {
    return {clipping_threshold,
            minimum_scale,
            beta1,
            weight_decay,
            multiply_by_parameter_scale,
            factor_scope == "expert",
            scale_scope == "expert",
            clip_scope == "expert"};
  }
};

Factoring choose_factoring(const Shape& shape, int stacked_dims, const AdafactorConfig& config);

}  // namespace stmoe
