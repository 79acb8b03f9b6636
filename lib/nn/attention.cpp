// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/attention.h"

#include "lib/ops/reshape.h"

namespace stmoe {

Attention::Attention(const ParameterScope& scope, const AttentionShape& shape,
                     const AttentionInitializers& initializers, const DropoutPolicy& dropout)
    : num_heads_(shape.num_heads),
      d_kv_(shape.d_kv),
      query_(scope / "query", shape.d_model, num_heads_ * d_kv_, initializers.query),
      key_(scope / "key", shape.d_model, num_heads_ * d_kv_, initializers.key),
      value_(scope / "value", shape.d_model, num_heads_ * d_kv_, initializers.value),
      output_(scope / "output", num_heads_ * d_kv_, shape.d_model, initializers.output),
      weight_dropout_(scope, "weights", dropout) {}

Var Attention::split_heads(const Var& x_BLI) const {
  return reshape(x_BLI, {x_BLI.dim(0), x_BLI.dim(1), num_heads_, d_kv_});
}

Attention::KeyValues Attention::project_source(const Var& source_BKD) const {
  return {split_heads(key_.forward(source_BKD)), split_heads(value_.forward(source_BKD))};
}

Var Attention::forward(const Var& x_BQD, const KeyValues& source, const AttentionView& view,
                       const ForwardContext& context) const {
  AttentionOptions options;
  options.query_segments_BQ = view.query_segments_BQ;
  options.key_segments_BK = view.key_segments_BK;
  options.is_causal = view.is_causal;
  options.query_offset = view.query_offset;
  options.dropout = weight_dropout_.options(context);
  options.is_dropout_shared = weight_dropout_.is_shared_along_length();
  const Var mixed_BQHK =
      attention(split_heads(query_.forward(x_BQD)), source.key_BKHK, source.value_BKHK,
                view.position_bias.bias_HR, view.position_bias.first_relative, options);
  return output_.forward(reshape(mixed_BQHK, {x_BQD.dim(0), x_BQD.dim(1), num_heads_ * d_kv_}));
}

}  // namespace stmoe
