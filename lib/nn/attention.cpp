// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/attention.h"

#include "lib/ops/attention_z_loss.h"
#include "lib/ops/reshape.h"

namespace stmoe {
namespace {

std::optional<Linear> projection(const ParameterScope& scope, const AttentionShape& shape,
                                 const Initializer& initializer) {
  if (!shape.has_projections) return std::nullopt;
  return Linear(scope, shape.d_model, shape.num_heads * shape.d_kv, initializer);
}

}  // namespace

Attention::Attention(const ParameterScope& scope, const AttentionShape& shape,
                     const AttentionInitializers& initializers, const DropoutPolicy& dropout)
    : num_heads_(shape.num_heads),
      d_kv_(shape.d_kv),
      has_z_loss_(shape.has_z_loss),
      query_(projection(scope / "query", shape, initializers.query)),
      key_(projection(scope / "key", shape, initializers.key)),
      value_(projection(scope / "value", shape, initializers.value)),
      output_(scope / "output", num_heads_ * d_kv_, shape.d_model, initializers.output),
      weight_dropout_(scope, "weights", dropout) {}

Var Attention::split_heads(const Var& x_BLI) const {
  return reshape(x_BLI, {x_BLI.dim(0), x_BLI.dim(1), num_heads_, d_kv_});
}

Attention::KeyValues Attention::project_source(const Var& source_BKD) const {
  return {split_heads(key_->forward(source_BKD)), split_heads(value_->forward(source_BKD))};
}

Attention::Output Attention::forward(const Var& x_BQD, const KeyValues& source,
                                     const AttentionView& view,
                                     const ForwardContext& context) const {
  return mix(project_query(x_BQD), source, view, context);
}

Attention::Output Attention::mix(const Var& query_BQHK, const KeyValues& source,
                                 const AttentionView& view, const ForwardContext& context) const {
  AttentionOptions options;
  options.query_segments_BQ = view.query_segments_BQ;
  options.key_segments_BK = view.key_segments_BK;
  options.is_causal = view.is_causal;
  options.query_offset = view.query_offset;
  options.dropout = weight_dropout_.options(context);
  options.is_dropout_shared = weight_dropout_.is_shared_along_length();
  options.method = context.attention;
  const auto& [bias_HR, first_relative] = view.position_bias;
  Output output;
  Var mixed_BQHK;
  if (has_z_loss_) {
    const auto [y_BQHK, lse_BHQ] = attention_with_lse(
        query_BQHK, source.key_BKHK, source.value_BKHK, bias_HR, first_relative, options);
    mixed_BQHK = y_BQHK;
    output.z_loss = attention_z_loss(lse_BHQ);
  } else {
    mixed_BQHK =
        attention(query_BQHK, source.key_BKHK, source.value_BKHK, bias_HR, first_relative, options);
  }
  output.y_BQD = output_.forward(
      reshape(mixed_BQHK, {query_BQHK.dim(0), query_BQHK.dim(1), num_heads_ * d_kv_}));
  return output;
}

}  // namespace stmoe
