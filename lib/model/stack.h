// SPDX-License-Identifier: Apache-2.0
// The encoder's and the decoder's blocks with what surrounds them: relative bias, final norm, and
// the dropout of what comes in, which the embedding applies. Pre-norm residual (T5):
//   encoder block:  x += dropout(SelfAttn(norm(x)));  x += dropout(FFN(norm(x)))
//   decoder block:  ... self, then x += dropout(CrossAttn(norm(x), encoder)), then FFN
//   stack end:      y = dropout(final_norm(x))
// Shapes: B batch, L encoder length, T decoder length, D width, H heads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/model/sublayers.h"

namespace stmoe {

// What one sparse layer did, where it did it.
struct LayerTally {
  std::string name;  // "encoder/block_1"
  RoutingTally tally;
};
// The same for logs and reports.
struct LayerRouting {
  std::string name;
  RoutingStatistics statistics;
};

// The losses of one sparse layer, without coefficients.
struct LayerLosses {
  StackKind stack;
  Var load_balance, router_z;
  BalanceParts balance;
};

// Collected over the layers of both stacks in order.
struct RoutingRecord {
  std::vector<LayerLosses> losses;
  std::vector<LayerTally> layers;
  std::vector<Var> attention_z_losses;
};

// A stack's tokens, i32 [B, L].
struct TokenIds {
  Tensor id_BL, segments_BL;
};

class EncoderStack {
 public:
  EncoderStack(const ParameterScope& scope, const ModelConfig& model, const MoeConfig& moe,
               const InitialValues& initial);
  // Of the embedded tokens.
  Dropout input_dropout(const ForwardContext& context) const {
    return input_dropout_.options(context);
  }
  // x_BLD embedded tokens, dropped out; ids and segments i32, segment 0 is padding. Returns the
  // normalised output.
  Var forward(const Var& x_BLD, const TokenIds& tokens, const ForwardContext& context,
              RoutingRecord& record) const;

 private:
  struct Block {
    AttentionSublayer self_attention;
    BlockFeedForward feed_forward;
  };
  std::string path_;
  bool is_recomputed_;
  RelativeBias relative_bias_;
  std::vector<Block> blocks_;
  RmsNorm final_norm_;
  DropoutSite input_dropout_, output_dropout_;
};

// What the decoder sees of the encoder.
struct EncoderView {
  Var encoder_BLD;
  Tensor segments_BL;
};

class DecoderStack {
 public:
  DecoderStack(const ParameterScope& scope, const ModelConfig& model, const MoeConfig& moe,
               const InitialValues& initial);
  // Of the embedded tokens.
  Dropout input_dropout(const ForwardContext& context) const {
    return input_dropout_.options(context);
  }
  // x_BTD embedded tokens, dropped out; segments undefined: no packing, every position is real.
  Var forward(const Var& x_BTD, const TokenIds& tokens, const EncoderView& encoder,
              const ForwardContext& context, RoutingRecord& record) const;

  // Decoding one position at a time.
  struct Cache {
    std::vector<KeyValueCache> self;          // per block
    std::vector<Attention::KeyValues> cross;  // per block, projected once
    Tensor encoder_segments_BL, query_segments_B1;
    PositionBias position_bias;  // of all distances up to the cache's capacity
  };
  Cache make_cache(const EncoderView& encoder, int64_t capacity) const;
  // id_B1 i32: the tokens at `position`.
  Var step(const Var& x_B1D, const Tensor& id_B1, int64_t position, const Cache& cache,
           const ForwardContext& context) const;

 private:
  struct Block {
    AttentionSublayer self_attention, cross_attention;
    BlockFeedForward feed_forward;
  };
  std::string path_;
  int64_t num_heads_, d_kv_;
  bool is_recomputed_;
  RelativeBias relative_bias_;
  std::vector<Block> blocks_;
  RmsNorm final_norm_;
  DropoutSite input_dropout_, output_dropout_;
};

}  // namespace stmoe
