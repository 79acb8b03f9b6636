// SPDX-License-Identifier: Apache-2.0
#include "lib/model/stack.h"

#include <algorithm>

#include "lib/autograd/tape.h"
#include "lib/ops/reshape.h"

namespace stmoe {
namespace {

bool is_sparse(const std::vector<int64_t>& sparse_layers, int64_t layer) {
  return std::find(sparse_layers.begin(), sparse_layers.end(), layer) != sparse_layers.end();
}

ParameterScope block_scope(const ParameterScope& stack, int64_t layer) {
  return stack / format("block_{}", layer);
}

// One block as a function of the values that it differentiates through.
using BlockFunction = std::function<FeedForwardSublayer::Output(const std::vector<Var>&)>;

// The same values as new nodes of the tape, so that a block's gradients of an input are summed
// before they join those of other blocks: the order in which recomputation sums them.
std::vector<Var> own_nodes(const std::vector<Var>& inputs) {
  std::vector<Var> copies;
  for (const Var& input : inputs) copies.push_back(reshape(input, input.shape()));
  return copies;
}

// Runs a block, keeping everything for the backward pass or only its inputs, and records a sparse
// layer's losses and statistics. What recomputation returns must be Vars, so the statistics take
// another way out.
Var run_block(const std::string& name, bool is_recomputed, const BlockFunction& block,
              const std::vector<Var>& inputs, RoutingRecord& record) {
  auto statistics = std::make_shared<std::optional<RoutingStatistics>>();
  auto outputs_of = [block, statistics](const std::vector<Var>& xs) {
    FeedForwardSublayer::Output output = block(xs);
    std::vector<Var> outputs = {output.y_BLD};
    if (output.routing) {
      outputs.push_back(output.routing->load_balance_loss);
      outputs.push_back(output.routing->router_z_loss);
      *statistics = std::move(output.routing->statistics);
    }
    return outputs;
  };
  const std::vector<Var> outputs =
      is_recomputed ? recompute(outputs_of, inputs) : outputs_of(own_nodes(inputs));
  if (outputs.size() == 3) {
    record.load_balance_losses.push_back(outputs[1]);
    record.router_z_losses.push_back(outputs[2]);
    record.layers.push_back({name, **statistics});
  }
  return outputs[0];
}

AttentionView self_view(const Tensor& segments, bool is_causal, const PositionBias& bias) {
  AttentionView view;
  view.query_segments_BQ = view.key_segments_BK = segments;
  view.is_causal = is_causal;
  view.position_bias = bias;
  return view;
}

AttentionView cross_view(const Tensor& query_segments, const Tensor& encoder_segments) {
  AttentionView view;
  view.query_segments_BQ = query_segments;
  view.key_segments_BK = encoder_segments;
  return view;
}

}  // namespace

Tensor nonzero(const Tensor& ids) {
  if (!ids.defined()) return Tensor();
  const Tensor flat = ids.contiguous();
  const Tensor mask = Tensor::empty(flat.shape(), DType::i32, flat.device());
  std::transform(flat.span<int32_t>().begin(), flat.span<int32_t>().end(),
                 mask.span<int32_t>().begin(), [](int32_t id) { return id != 0 ? 1 : 0; });
  return mask;
}

EncoderStack::EncoderStack(const ParameterScope& scope, const ModelConfig& model,
                           const MoeConfig& moe, const InitialValues& initial)
    : path_(scope.path()),
      is_recomputed_(model.recompute == "block"),
      relative_bias_(scope / "relative_bias", model.num_heads, model.buckets(true),
                     initial.relative_bias),
      final_norm_(scope / "final_norm", model.d_model, initial.norm_scale),
      input_dropout_(scope, "input", model.dropout_policy()),
      output_dropout_(scope, "output", model.dropout_policy()) {
  for (int64_t layer = 0; layer < model.encoder_layers; ++layer) {
    const ParameterScope block = block_scope(scope, layer);
    blocks_.push_back({AttentionSublayer(block / "self_attention", model, initial),
                       FeedForwardSublayer(block, model, moe,
                                           is_sparse(moe.encoder_sparse_layers, layer), initial)});
  }
}

Var EncoderStack::forward(const Var& x_BLD, const Tensor& segments_BL,
                          const ForwardContext& context, RoutingRecord& record) const {
  const PositionBias bias = relative_bias_.forward(x_BLD.dim(1));
  const Tensor mask_BL = nonzero(segments_BL);
  Var y_BLD = input_dropout_.forward(x_BLD, context);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    auto run = [&block, segments_BL, mask_BL, context,
                first = bias.first_relative](const std::vector<Var>& xs) {
      const Var h_BLD =
          block.self_attention.self(xs[0], self_view(segments_BL, false, {xs[1], first}), context);
      return block.feed_forward.forward(h_BLD, mask_BL, context);
    };
    y_BLD = run_block(format("{}/block_{}", path_, i), is_recomputed_, run, {y_BLD, bias.bias_HR},
                      record);
  }
  return output_dropout_.forward(final_norm_.forward(y_BLD), context);
}

DecoderStack::DecoderStack(const ParameterScope& scope, const ModelConfig& model,
                           const MoeConfig& moe, const InitialValues& initial)
    : path_(scope.path()),
      num_heads_(model.num_heads),
      d_kv_(model.d_kv),
      is_recomputed_(model.recompute == "block"),
      relative_bias_(scope / "relative_bias", model.num_heads, model.buckets(false),
                     initial.relative_bias),
      final_norm_(scope / "final_norm", model.d_model, initial.norm_scale),
      input_dropout_(scope, "input", model.dropout_policy()),
      output_dropout_(scope, "output", model.dropout_policy()) {
  for (int64_t layer = 0; layer < model.decoder_layers; ++layer) {
    const ParameterScope block = block_scope(scope, layer);
    blocks_.push_back({AttentionSublayer(block / "self_attention", model, initial),
                       AttentionSublayer(block / "cross_attention", model, initial),
                       FeedForwardSublayer(block, model, moe,
                                           is_sparse(moe.decoder_sparse_layers, layer), initial)});
  }
}

Var DecoderStack::forward(const Var& x_BTD, const Tensor& segments_BT, const EncoderView& encoder,
                          const ForwardContext& context, RoutingRecord& record) const {
  const PositionBias bias = relative_bias_.forward(x_BTD.dim(1));
  const Tensor mask_BT = nonzero(segments_BT);
  const Tensor query_segments_BT =
      segments_BT.defined() ? segments_BT
                            : Tensor::full({x_BTD.dim(0), x_BTD.dim(1)}, DType::i32, 1.0);
  const AttentionView cross = cross_view(query_segments_BT, encoder.segments_BL);
  Var y_BTD = input_dropout_.forward(x_BTD, context);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    auto run = [&block, segments_BT, mask_BT, cross, context,
                first = bias.first_relative](const std::vector<Var>& xs) {
      const Var h_BTD =
          block.self_attention.self(xs[0], self_view(segments_BT, true, {xs[1], first}), context);
      const auto source = block.cross_attention.project_source(xs[2]);
      return block.feed_forward.forward(block.cross_attention.cross(h_BTD, source, cross, context),
                                        mask_BT, context);
    };
    y_BTD = run_block(format("{}/block_{}", path_, i), is_recomputed_, run,
                      {y_BTD, bias.bias_HR, encoder.encoder_BLD}, record);
  }
  return output_dropout_.forward(final_norm_.forward(y_BTD), context);
}

DecoderStack::Cache DecoderStack::make_cache(const EncoderView& encoder, int64_t capacity) const {
  const int64_t batch = encoder.encoder_BLD.dim(0);
  Cache cache;
  for (const Block& block : blocks_) {
    const Shape shape = {batch, capacity, num_heads_, d_kv_};
    cache.self.push_back({Tensor::empty(shape, encoder.encoder_BLD.dtype()),
                          Tensor::empty(shape, encoder.encoder_BLD.dtype())});
    cache.cross.push_back(block.cross_attention.project_source(encoder.encoder_BLD));
  }
  cache.encoder_segments_BL = encoder.segments_BL;
  cache.query_segments_B1 = Tensor::full({batch, 1}, DType::i32, 1.0);
  cache.position_bias = relative_bias_.forward(capacity);
  return cache;
}

Var DecoderStack::step(const Var& x_B1D, int64_t position, const Cache& cache,
                       const ForwardContext& context) const {
  AttentionView self = self_view(Tensor(), true, cache.position_bias);
  self.query_offset = position;
  const AttentionView cross = cross_view(cache.query_segments_B1, cache.encoder_segments_BL);
  Var y_B1D = x_B1D;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    y_B1D = block.self_attention.step(y_B1D, cache.self[i], self, context);
    y_B1D = block.cross_attention.cross(y_B1D, cache.cross[i], cross, context);
    y_B1D = block.feed_forward.forward(y_B1D, Tensor(), context).y_BLD;
  }
  return final_norm_.forward(y_B1D);
}

}  // namespace stmoe
