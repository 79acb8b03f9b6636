// SPDX-License-Identifier: Apache-2.0
// Decoding position by position: keys and values of earlier positions are kept, those of the
// encoder's output are projected once. The logits equal those of EncoderDecoder::forward at the
// same position.
#pragma once

#include "lib/model/encoder_decoder.h"

namespace stmoe {

class DecoderState {
 public:
  // Encodes tokens_BL (i32; 0 is padding). At most `capacity` positions can be decoded. The model
  // must outlive this; nothing is recorded for a backward pass. Experts take every token
  // (ForwardContext::is_dropless).
  DecoderState(const EncoderDecoder& model, const Tensor& tokens_BL, int64_t capacity,
               DType compute);

  // The next position's logits [B, V], f32 (f64), given its input tokens [B] (i32): the start token
  // 0 first, then what was chosen.
  Tensor step(const Tensor& inputs_B);
  int64_t position() const { return position_; }
  int64_t capacity() const { return capacity_; }

 private:
  const EncoderDecoder& model_;
  ForwardContext context_;
  int64_t batch_, capacity_, position_ = 0;
  DecoderStack::Cache cache_;
};

}  // namespace stmoe
