// SPDX-License-Identifier: Apache-2.0
// The residual sublayers of a block, x + dropout(f(norm(x))): attention, and a feed-forward layer
// that is dense or sparse. Shapes: B batch, L length, D width; Q and K the lengths of queries and
// keys, H heads.
#pragma once

#include <optional>
#include <variant>

#include "lib/model/initial_values.h"
#include "lib/moe/moe_layer.h"
#include "lib/nn/attention.h"
#include "lib/nn/feed_forward.h"
#include "lib/nn/rms_norm.h"

namespace stmoe {

// Keys and values of a sequence that grows by one position a step: [B, capacity, H, d_kv], filled
// from the front.
struct KeyValueCache {
  Tensor key_BKHK, value_BKHK;
};

class AttentionSublayer {
 public:
  AttentionSublayer(const ParameterScope& scope, const ModelConfig& model,
                    const InitialValues& initial);

  Var self(const Var& x_BLD, const AttentionView& view, const ForwardContext& context) const;
  // `source`: the projected output of the encoder.
  Var cross(const Var& x_BLD, const Attention::KeyValues& source, const AttentionView& view,
            const ForwardContext& context) const;
  // Self-attention of one new position: x_B1D joins the cache at view.query_offset and sees
  // everything up to there.
  Var step(const Var& x_B1D, const KeyValueCache& cache, const AttentionView& view,
           const ForwardContext& context) const;
  Attention::KeyValues project_source(const Var& source_BLD) const {
    return attention_.project_source(source_BLD);
  }

 private:
  Var add_residual(const Var& x_BLD, const Var& y_BLD, const ForwardContext& context) const;

  RmsNorm norm_;
  Attention attention_;
  DropoutSite residual_dropout_;
};

class FeedForwardSublayer {
 public:
  // `block`: the block's scope; weights go to block/feed_forward or, when sparse, to block/moe.
  FeedForwardSublayer(const ParameterScope& block, const ModelConfig& model, const MoeConfig& moe,
                      bool is_sparse, const InitialValues& initial);

  struct Output {
    Var y_BLD;
    std::optional<MoeLayer::Output> routing;  // of a sparse layer; its y_BLD is not set
  };
  // mask_BL i32: 1 real token, 0 padding; undefined: all real.
  Output forward(const Var& x_BLD, const Tensor& mask_BL, const ForwardContext& context) const;
  bool is_sparse() const { return std::holds_alternative<MoeLayer>(layer_); }

 private:
  RmsNorm norm_;
  std::variant<FeedForward, MoeLayer> layer_;
  DropoutSite residual_dropout_;
};

}  // namespace stmoe
