// SPDX-License-Identifier: Apache-2.0
// T5's span corruption, as in t5/data/preprocessors.py (random_spans_helper,
// random_spans_noise_mask, noise_span_to_unique_sentinel): a segment "a b c d e" with the runs "b"
// and "d e" masked becomes
//   inputs  a <extra_id_0> c <extra_id_1> </s>        targets  <extra_id_0> b <extra_id_1> d e </s>
// Roundings are to nearest, half to even: in f64 for the lengths, in f32 for the mask, as there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/random.h"

namespace stmoe {

struct SpanCorruption {
  double noise_density = 0.15;
  double mean_span_length = 3.0;
};

struct SpanCorruptionLengths {
  int64_t raw = 0;      // tokens of a segment before corruption
  int64_t inputs = 0;   // of a full segment, EOS included; at most the length asked for
  int64_t targets = 0;  // of a full segment, EOS included
  int64_t spans = 0;    // sentinels that a full segment uses
};
// The longest segments whose corrupted inputs fit in `input_length` tokens (at least 2).
SpanCorruptionLengths span_corruption_lengths(int64_t input_length, const SpanCorruption& settings);

struct NoiseCounts {
  int64_t noise = 0, nonnoise = 0, spans = 0;  // noise + nonnoise = max(num_tokens, 2)
};
NoiseCounts noise_counts(int64_t num_tokens, const SpanCorruption& settings);

// Splits `items` into `parts` positive numbers, every split equally likely; 1 <= parts <= items.
std::vector<int64_t> random_partition(int64_t items, int64_t parts, RandomStream& random);

// 1 where a token is noise: runs of nonnoise[0], noise[0], nonnoise[1], ... tokens, cut to
// `num_tokens`.
std::vector<uint8_t> noise_mask(std::span<const int64_t> nonnoise, std::span<const int64_t> noise,
                                int64_t num_tokens);

// What the model sees and what it must write.
struct Example {
  std::vector<int32_t> inputs, targets;
};

// Replaces run i of masked tokens in the inputs, and run i of the others in the targets, by
// `first_sentinel` - i.
Example apply_noise_mask(std::span<const int32_t> tokens, std::span<const uint8_t> mask,
                         int32_t first_sentinel);

// All of it for one segment, without EOS; a pure function of its arguments.
Example corrupt_spans(std::span<const int32_t> tokens, const SpanCorruption& settings,
                      int32_t first_sentinel, RandomKey key);

// Cuts both sides to one less than their lengths and appends EOS (seqio's append_eos_after_trim).
void append_eos_after_trim(Example& example, int64_t input_length, int64_t target_length);

}  // namespace stmoe
