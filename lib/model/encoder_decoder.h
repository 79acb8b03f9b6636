// SPDX-License-Identifier: Apache-2.0
// The whole model: T5's encoder-decoder with dense or sparse feed-forward layers (Raffel et al.
// 2020; Fedus et al. 2021; docs/design/model.md). Shapes: B batch, L encoder length, T decoder
// length, V vocabulary, D width.
#pragma once

#include "lib/model/stack.h"
#include "lib/nn/embedding.h"
#include "lib/ops/cross_entropy.h"

namespace stmoe {

// All i32. Segment ids number the examples packed into a row from 1; 0 is padding.
struct ModelInputs {
  Tensor encoder_tokens_BL;
  Tensor encoder_segments_BL;  // undefined: 1 where the token is not 0
  Tensor decoder_inputs_BT;    // targets shifted right, starting with 0
  Tensor decoder_segments_BT;  // undefined: no packing, every position takes part
};

struct ModelOutputs {
  Var logits_BTV;   // f32 (f64); undefined after forward_hidden
  Var decoder_BTD;  // what the logits are made of
  Var encoder_BLD;
  Var load_balance_loss,
      router_z_loss;  // over the sparse layers as moe.loss_over_layers says; undefined in a dense
                      // model
  // Mean over the attention layers of both stacks; undefined when model.attention_z_loss is 0.
  Var attention_z_loss;
  std::vector<LayerTally> routing;  // encoder first
};

class EncoderDecoder {
 public:
  // Makes all weights in `store`; model.vocabulary_size must be set. Throws UsageError for configs
  // that do not fit.
  EncoderDecoder(const ModelConfig& model, const MoeConfig& moe, ParameterStore& store);

  ModelOutputs forward(const ModelInputs& inputs, const ForwardContext& context) const;
  // Everything but the logits.
  ModelOutputs forward_hidden(const ModelInputs& inputs, const ForwardContext& context) const;
  // The loss of what forward_hidden gives, without ever holding all logits; targets_BT i32, 0 does
  // not count. `expected_gradient`: see ops/linear_cross_entropy.h.
  CrossEntropy loss(const Var& decoder_BTD, const Tensor& targets_BT,
                    const CrossEntropyOptions& options, double expected_gradient = 1) const;

  // The parts of forward, for decoding (decoder_state.h).
  EncoderView encode(const Tensor& tokens_BL, const Tensor& segments_BL,
                     const ForwardContext& context, RoutingRecord& record) const;
  Var embed(const Tensor& tokens, const ForwardContext& context,
            const Dropout& dropout = {}) const {
    return embedding_.forward(tokens, context.compute, dropout);
  }
  const DecoderStack& decoder() const { return decoder_; }
  // h [..., D], the decoder's output -> [..., V] in f32 (f64).
  Var logits(const Var& h) const;

  int64_t vocabulary_size() const { return vocabulary_size_; }
  // Where its weights are; a weight that is only planned is nowhere: cpu.
  Device device() const { return embedding_.table().device(); }

 private:
  struct Complete {};  // the config is resolved
  EncoderDecoder(Complete, const ModelConfig& model, const MoeConfig& moe, ParameterStore& store);

  int64_t vocabulary_size_;
  double logits_factor_;  // d_model^-0.5 when tied
  Embedding embedding_;
  EncoderStack encoder_;
  DecoderStack decoder_;
  std::optional<Linear> logits_;  // untied output projection
  std::string loss_over_layers_;
};

}  // namespace stmoe
