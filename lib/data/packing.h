// SPDX-License-Identifier: Apache-2.0
// Several examples in one row, as seqio's trim_and_pack_dataset: examples are appended in order to
// one open row; one that does not fit in either side closes it. Tokens of a row's k-th example
// (from 1) carry segment id k, padding 0; attention looks only at equal, non-zero ids. Decoder
// inputs are the targets shifted right by one inside each segment, starting from 0 (seqio
// utils.make_autoregressive_inputs).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/data/span_corruption.h"

namespace stmoe {

// decoder_inputs[i] = targets[i - 1] inside a segment, 0 at its first position. Equal lengths.
void shift_right(std::span<const int32_t> targets, std::span<const int32_t> segments,
                 std::span<int32_t> decoder_inputs);

// Where a finished row goes: input_length tokens in the first two, target_length in the others.
struct RowSpans {
  std::span<int32_t> encoder_tokens, encoder_segments, decoder_inputs, targets, decoder_segments;
};

class PackedRow {
 public:
  PackedRow(int64_t input_length, int64_t target_length);

  // Trims the example to the two lengths and appends it; false, and unchanged, when it does not
  // fit.
  bool append(const Example& example);
  bool empty() const { return num_examples_ == 0; }
  // Writes the row, padded with 0, and empties it.
  void take(const RowSpans& row);

 private:
  struct Side {
    size_t length;
    std::vector<int32_t> tokens, segments;
    size_t room() const { return length - tokens.size(); }
    void append(std::span<const int32_t> example, int32_t segment);
    void take(std::span<int32_t> tokens_out, std::span<int32_t> segments_out);
  };
  Side inputs_, targets_;
  int32_t num_examples_ = 0;
};

}  // namespace stmoe
