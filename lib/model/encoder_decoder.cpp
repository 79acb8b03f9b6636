// SPDX-License-Identifier: Apache-2.0
#include "lib/model/encoder_decoder.h"

#include <algorithm>
#include <cmath>

#include "lib/ops/add.h"
#include "lib/ops/linear_cross_entropy.h"
#include "lib/ops/nonzero.h"
#include "lib/ops/reshape.h"
#include "lib/tensor/add_in_place.h"

namespace stmoe {
namespace {

const ModelConfig& checked(const ModelConfig& model, const MoeConfig& moe) {
  Problems problems;
  model.validate(problems);
  validate_sparse_layers(model, moe, problems);
  problems.throw_if_any();
  STMOE_CHECK(model.vocabulary_size > 0, "model: vocabulary_size is not set");
  return model;
}

std::optional<Linear> output_projection(const ModelConfig& model, ParameterStore& store) {
  if (model.tied_embeddings) return std::nullopt;
  return Linear(ParameterScope(store) / "decoder" / "logits", model.d_model, model.vocabulary_size,
                initial_values(model).logits);
}

Var mean(const std::vector<Var>& values) {
  if (values.empty()) return Var();
  const double share = 1.0 / static_cast<double>(values.size());
  return weighted_sum(values, std::vector<double>(values.size(), share));
}

// E mean_g sum_e mean(f) mean(P), the means over the layers: what the tokens of a group give in all
// layers together. The layers of a stack have the same groups.
Var joined_balance_loss(const std::vector<LayerLosses>& layers) {
  const Var& first_GE = layers.front().balance.probability_GE;
  const Tensor share_GE = Tensor::zeros(first_GE.shape(), first_GE.dtype(), first_GE.device());
  for (const LayerLosses& layer : layers) add_in_place(share_GE, layer.balance.share_GE);
  std::vector<Var> products;
  for (const LayerLosses& layer : layers)
    products.push_back(sum(multiply(layer.balance.probability_GE, Var(share_GE))));
  const auto n = static_cast<double>(layers.size());
  const double factor = static_cast<double>(first_GE.dim(1)) / static_cast<double>(first_GE.dim(0));
  return weighted_sum(products, std::vector<double>(layers.size(), factor / (n * n)));
}

struct RoutingLosses {
  Var load_balance, router_z;  // undefined without sparse layers
};

// moe.loss_over_layers: mean or sum of all layers, or each stack's layers joined and the stacks
// added (Hugging Face, where the layers of a stack are concatenated along their tokens).
RoutingLosses over_layers(const std::vector<LayerLosses>& layers, const std::string& rule) {
  if (layers.empty()) return {};
  std::vector<Var> balance, z;
  std::vector<double> weights;
  auto stacks = [&](StackKind stack) {
    std::vector<LayerLosses> own;
    std::copy_if(layers.begin(), layers.end(), std::back_inserter(own),
                 [&](const LayerLosses& layer) { return layer.stack == stack; });
    return own;
  };
  for (const LayerLosses& layer : layers) {
    balance.push_back(layer.load_balance);
    z.push_back(layer.router_z);
    const double n = rule == "mean"  ? static_cast<double>(layers.size())
                     : rule == "sum" ? 1.0
                                     : static_cast<double>(stacks(layer.stack).size());
    weights.push_back(1.0 / n);
  }
  const bool can_join = std::all_of(layers.begin(), layers.end(), [](const LayerLosses& layer) {
    return layer.balance.defined();
  });
  if (rule != "stacks" || !can_join)
    return {weighted_sum(balance, weights), weighted_sum(z, weights)};
  std::vector<Var> joined;
  for (StackKind stack : {StackKind::encoder, StackKind::decoder})
    if (const auto own = stacks(stack); !own.empty()) joined.push_back(joined_balance_loss(own));
  return {weighted_sum(joined, std::vector<double>(joined.size(), 1.0)), weighted_sum(z, weights)};
}

}  // namespace

EncoderDecoder::EncoderDecoder(const ModelConfig& model, const MoeConfig& given,
                               ParameterStore& store)
    : EncoderDecoder(Complete{}, model, resolved(given), store) {}

EncoderDecoder::EncoderDecoder(Complete, const ModelConfig& model, const MoeConfig& moe,
                               ParameterStore& store)
    : vocabulary_size_(checked(model, moe).vocabulary_size),
      logits_factor_(1.0 / std::sqrt(static_cast<double>(model.d_model))),
      embedding_(ParameterScope(store) / "shared", vocabulary_size_, model.d_model,
                 initial_values(model).embedding),
      encoder_(ParameterScope(store) / "encoder", model, moe, initial_values(model)),
      decoder_(ParameterScope(store) / "decoder", model, moe, initial_values(model)),
      logits_(output_projection(model, store)),
      loss_over_layers_(*moe.loss_over_layers) {}

EncoderView EncoderDecoder::encode(const Tensor& tokens_BL, const Tensor& segments_BL,
                                   const ForwardContext& context, RoutingRecord& record) const {
  const Tensor segments = segments_BL.defined() ? segments_BL : nonzero(tokens_BL);
  const Var x_BLD = embed(tokens_BL, context, encoder_.input_dropout(context));
  return {encoder_.forward(x_BLD, {tokens_BL, segments}, context, record), segments};
}

Var EncoderDecoder::logits(const Var& h) const {
  const DType dtype = h.dtype() == DType::f64 ? DType::f64 : DType::f32;
  if (logits_) return logits_->forward(h, dtype);
  return embedding_.logits(scale(h, logits_factor_), dtype);
}

CrossEntropy EncoderDecoder::loss(const Var& decoder_BTD, const Tensor& targets_BT,
                                  const CrossEntropyOptions& options,
                                  double expected_gradient) const {
  LinearCrossEntropyOptions all;
  all.loss = options;
  all.factor = logits_ ? 1.0 : logits_factor_;
  all.is_transposed = !logits_;
  all.expected_gradient = expected_gradient;
  const Var h_ND = reshape(decoder_BTD, {-1, decoder_BTD.dim(2)});
  return linear_cross_entropy(h_ND, logits_ ? logits_->kernel() : embedding_.table(),
                              targets_BT.contiguous().reshape({-1}), all);
}

ModelOutputs EncoderDecoder::forward(const ModelInputs& inputs,
                                     const ForwardContext& context) const {
  ModelOutputs outputs = forward_hidden(inputs, context);
  outputs.logits_BTV = logits(outputs.decoder_BTD);
  return outputs;
}

ModelOutputs EncoderDecoder::forward_hidden(const ModelInputs& inputs,
                                            const ForwardContext& context) const {
  STMOE_CHECK(inputs.encoder_tokens_BL.rank() == 2 && inputs.decoder_inputs_BT.rank() == 2 &&
                  inputs.encoder_tokens_BL.dim(0) == inputs.decoder_inputs_BT.dim(0),
              "model: encoder tokens {}, decoder inputs {}",
              inputs.encoder_tokens_BL.shape().text(), inputs.decoder_inputs_BT.shape().text());
  RoutingRecord record;
  const EncoderView encoder =
      encode(inputs.encoder_tokens_BL, inputs.encoder_segments_BL, context, record);
  ModelOutputs outputs;
  const Var x_BTD = embed(inputs.decoder_inputs_BT, context, decoder_.input_dropout(context));
  outputs.decoder_BTD = decoder_.forward(
      x_BTD, {inputs.decoder_inputs_BT, inputs.decoder_segments_BT}, encoder, context, record);
  outputs.encoder_BLD = encoder.encoder_BLD;
  const RoutingLosses losses = over_layers(record.losses, loss_over_layers_);
  outputs.load_balance_loss = losses.load_balance;
  outputs.router_z_loss = losses.router_z;
  outputs.attention_z_loss = mean(record.attention_z_losses);
  outputs.routing = std::move(record.layers);
  return outputs;
}

}  // namespace stmoe
