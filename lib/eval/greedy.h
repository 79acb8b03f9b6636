// SPDX-License-Identifier: Apache-2.0
// Greedy decoding: at each position the most probable token (the lower id of equals), until every
// text has ended or is full.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/model/encoder_decoder.h"

namespace stmoe {

// tokens_BL i32, 0 is padding. Returns for each row the tokens chosen before EOS, at most
// `max_length` of them.
std::vector<std::vector<int32_t>> decode_greedily(const EncoderDecoder& model,
                                                  const Tensor& tokens_BL, int64_t max_length,
                                                  DType compute);

}  // namespace stmoe
