// SPDX-License-Identifier: Apache-2.0
#include "lib/model/stack.h"

#include <algorithm>

#include "lib/autograd/tape.h"
#include "lib/ops/nonzero.h"
#include "lib/ops/reshape.h"

namespace stmoe {
namespace {

// The stack when its layer is listed as sparse.
std::optional<StackKind> sparse_in(StackKind stack, const std::vector<int64_t>& sparse_layers,
                                   int64_t layer) {
  const bool is_listed =
      std::find(sparse_layers.begin(), sparse_layers.end(), layer) != sparse_layers.end();
  return is_listed ? std::optional(stack) : std::nullopt;
}

ParameterScope block_scope(const ParameterScope& stack, int64_t layer) {
  return stack / format("block_{}", layer);
}

// One block as a function of the residual stream and of the other values that it differentiates
// through.
using BlockFunction =
    std::function<Residual(const Residual& x, const std::vector<Var>& others, BlockRecord& record)>;

// The same values as new nodes of the tape, so that a block's gradients of an input are summed
// before they join those of other blocks: the order in which recomputation sums them.
std::vector<Var> own_nodes(const std::vector<Var>& inputs) {
  std::vector<Var> copies;
  for (const Var& input : inputs) copies.push_back(reshape(input, input.shape()));
  return copies;
}

// What of a record is differentiated through, always in the same order.
std::vector<Var*> vars_of(BlockRecord& record) {
  std::vector<Var*> vars;
  for (BlockRecord::SparseLayer& layer : record.sparse_layers) {
    vars.insert(vars.end(), {&layer.output.load_balance_loss, &layer.output.router_z_loss});
    BalanceParts& balance = layer.output.balance;
    if (balance.share_GE.defined()) vars.push_back(&balance.probability_GE);
  }
  for (Var& loss : record.attention_z_losses) vars.push_back(&loss);
  return vars;
}

// Runs a block and keeps one value of the stream in front of it and the other inputs instead of
// what is inside. What recomputation returns must be Vars, so what else is in the record takes
// another way out.
Residual recomputed(const BlockFunction& block, const Residual& x, const std::vector<Var>& others,
                    BlockRecord& record) {
  auto beside = std::make_shared<BlockRecord>();
  std::vector<Var> inputs = {x.value()};
  inputs.insert(inputs.end(), others.begin(), others.end());
  const auto outputs = recompute(
      [block, beside](const std::vector<Var>& xs) {
        BlockRecord inside;
        std::vector<Var> results = {
            block({xs[0], {}, {}}, {xs.begin() + 1, xs.end()}, inside).value()};
        for (Var* var : vars_of(inside)) results.push_back(std::exchange(*var, Var()));
        *beside = std::move(inside);
        return results;
      },
      inputs);
  record = std::move(*beside);
  size_t next = 1;
  for (Var* var : vars_of(record)) *var = outputs[next++];
  return {outputs[0], {}, {}};
}

// Runs a block and records what it gives beside the stream.
Residual run_block(StackKind stack, const std::string& name, bool is_recomputed,
                   const BlockFunction& block, const Residual& x, const std::vector<Var>& others,
                   RoutingRecord& record) {
  BlockRecord own;
  const Residual y =
      is_recomputed ? recomputed(block, x, others, own) : block(x, own_nodes(others), own);
  for (BlockRecord::SparseLayer& layer : own.sparse_layers) {
    MoeLayer::Output& output = layer.output;
    record.losses.push_back(
        {stack, output.load_balance_loss, output.router_z_loss, output.balance});
    record.layers.push_back({name + layer.part, std::move(output.tally)});
  }
  record.attention_z_losses.insert(record.attention_z_losses.end(), own.attention_z_losses.begin(),
                                   own.attention_z_losses.end());
  return y;
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
    blocks_.push_back(
        {AttentionSublayer(block / "self_attention", model, moe,
                           sparse_in(StackKind::encoder, moe.encoder_attention_layers, layer),
                           initial),
         BlockFeedForward(block, model, moe,
                          sparse_in(StackKind::encoder, moe.encoder_sparse_layers, layer),
                          initial)});
  }
}

Var EncoderStack::forward(const Var& x_BLD, const TokenIds& tokens, const ForwardContext& context,
                          RoutingRecord& record) const {
  const PositionBias bias = relative_bias_.forward(x_BLD.dim(1));
  const TokenView view = {nonzero(tokens.segments_BL), tokens.id_BL};
  Residual y = {x_BLD, {}, {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    auto run = [&block, segments_BL = tokens.segments_BL, view, context,
                first = bias.first_relative](const Residual& x, const std::vector<Var>& others,
                                             BlockRecord& inside) {
      const AttentionView self = self_view(segments_BL, false, {others[0], first});
      return block.feed_forward.forward(block.self_attention.self(x, self, view, context, inside),
                                        view, context, inside);
    };
    y = run_block(StackKind::encoder, format("{}/block_{}", path_, i), is_recomputed_, run, y,
                  {bias.bias_HR}, record);
  }
  return output_dropout_.forward(final_norm_.forward(y).y, context);
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
    blocks_.push_back(
        {AttentionSublayer(block / "self_attention", model, moe,
                           sparse_in(StackKind::decoder, moe.decoder_attention_layers, layer),
                           initial),
         AttentionSublayer(block / "cross_attention", model, moe, std::nullopt, initial),
         BlockFeedForward(block, model, moe,
                          sparse_in(StackKind::decoder, moe.decoder_sparse_layers, layer),
                          initial)});
  }
}

Var DecoderStack::forward(const Var& x_BTD, const TokenIds& tokens, const EncoderView& encoder,
                          const ForwardContext& context, RoutingRecord& record) const {
  const PositionBias bias = relative_bias_.forward(x_BTD.dim(1));
  const Tensor segments_BT = tokens.segments_BL;
  const TokenView view = {nonzero(segments_BT), tokens.id_BL};
  const Tensor query_segments_BT =
      segments_BT.defined()
          ? segments_BT
          : Tensor::full({x_BTD.dim(0), x_BTD.dim(1)}, DType::i32, 1.0, x_BTD.device());
  const AttentionView cross = cross_view(query_segments_BT, encoder.segments_BL);
  Residual y = {x_BTD, {}, {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    auto run = [&block, segments_BT, view, cross, context, first = bias.first_relative](
                   const Residual& x, const std::vector<Var>& others, BlockRecord& inside) {
      const AttentionView self = self_view(segments_BT, true, {others[0], first});
      const Residual h = block.self_attention.self(x, self, view, context, inside);
      const auto source = block.cross_attention.project_source(others[1]);
      const Residual mixed = block.cross_attention.cross(h, source, cross, context, inside);
      return block.feed_forward.forward(mixed, view, context, inside);
    };
    y = run_block(StackKind::decoder, format("{}/block_{}", path_, i), is_recomputed_, run, y,
                  {bias.bias_HR, encoder.encoder_BLD}, record);
  }
  return output_dropout_.forward(final_norm_.forward(y).y, context);
}

DecoderStack::Cache DecoderStack::make_cache(const EncoderView& encoder, int64_t capacity) const {
  const int64_t batch = encoder.encoder_BLD.dim(0);
  Cache cache;
  for (const Block& block : blocks_) {
    const Shape shape = {batch, capacity, num_heads_, d_kv_};
    const auto empty = [&] {
      return Tensor::empty(shape, encoder.encoder_BLD.dtype(), encoder.encoder_BLD.device());
    };
    cache.self.push_back({empty(), empty()});
    cache.cross.push_back(block.cross_attention.project_source(encoder.encoder_BLD));
  }
  cache.encoder_segments_BL = encoder.segments_BL;
  cache.query_segments_B1 = Tensor::full({batch, 1}, DType::i32, 1.0, encoder.encoder_BLD.device());
  cache.position_bias = relative_bias_.forward(capacity);
  return cache;
}

Var DecoderStack::step(const Var& x_B1D, const Tensor& id_B1, int64_t position, const Cache& cache,
                       const ForwardContext& context) const {
  AttentionView self = self_view(Tensor(), true, cache.position_bias);
  self.query_offset = position;
  const AttentionView cross = cross_view(cache.query_segments_B1, cache.encoder_segments_BL);
  Residual y = {x_B1D, {}, {}};
  const TokenView tokens = {Tensor(), id_B1};
  BlockRecord unused;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    y = block.self_attention.step(y, cache.self[i], self, tokens, context);
    y = block.cross_attention.cross(y, cache.cross[i], cross, context, unused);
    y = block.feed_forward.forward(y, tokens, context, unused);
  }
  return final_norm_.forward(y).y;
}

}  // namespace stmoe
