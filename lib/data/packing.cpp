// SPDX-License-Identifier: Apache-2.0
#include "lib/data/packing.h"

#include <algorithm>

#include "lib/base/error.h"

namespace stmoe {
namespace {

std::span<const int32_t> trim(const std::vector<int32_t>& tokens, size_t length) {
  return std::span(tokens).first(std::min(tokens.size(), length));
}

}  // namespace

void shift_right(std::span<const int32_t> targets, std::span<const int32_t> segments,
                 std::span<int32_t> decoder_inputs) {
  STMOE_CHECK(targets.size() == segments.size() && targets.size() == decoder_inputs.size(),
              "shift_right: lengths {}, {} and {}", targets.size(), segments.size(),
              decoder_inputs.size());
  for (size_t i = 0; i < targets.size(); ++i)
    decoder_inputs[i] = i > 0 && segments[i] == segments[i - 1] ? targets[i - 1] : 0;
}

PackedRow::PackedRow(int64_t input_length, int64_t target_length)
    : inputs_{static_cast<size_t>(input_length), {}, {}},
      targets_{static_cast<size_t>(target_length), {}, {}} {}

bool PackedRow::append(const Example& example) {
  const auto inputs = trim(example.inputs, inputs_.length);
  const auto targets = trim(example.targets, targets_.length);
  if (inputs.size() > inputs_.room() || targets.size() > targets_.room()) return false;
  ++num_examples_;
  inputs_.append(inputs, num_examples_);
  targets_.append(targets, num_examples_);
  return true;
}

void PackedRow::take(const RowSpans& row) {
  inputs_.take(row.encoder_tokens, row.encoder_segments);
  targets_.take(row.targets, row.decoder_segments);
  shift_right(row.targets, row.decoder_segments, row.decoder_inputs);
  num_examples_ = 0;
}

void PackedRow::Side::append(std::span<const int32_t> example, int32_t segment) {
  tokens.insert(tokens.end(), example.begin(), example.end());
  segments.insert(segments.end(), example.size(), segment);
}

void PackedRow::Side::take(std::span<int32_t> tokens_out, std::span<int32_t> segments_out) {
  STMOE_CHECK(tokens_out.size() == length && segments_out.size() == length,
              "packing: a row of {} tokens, expected {}", tokens_out.size(), length);
  tokens.resize(length, 0);
  segments.resize(length, 0);
  std::copy(tokens.begin(), tokens.end(), tokens_out.begin());
  std::copy(segments.begin(), segments.end(), segments_out.begin());
  tokens.clear();
  segments.clear();
}

}  // namespace stmoe
