// SPDX-License-Identifier: Apache-2.0
#include "lib/data/span_corruption.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/data/vocabulary.h"

namespace stmoe {
namespace {

// Lengths of a corrupted segment of `raw` tokens: one sentinel a span on either side, and EOS.
SpanCorruptionLengths corrupted_lengths(int64_t raw, const SpanCorruption& settings) {
  const double noise = std::nearbyint(static_cast<double>(raw) * settings.noise_density);
  const double spans = std::nearbyint(noise / settings.mean_span_length);
  SpanCorruptionLengths lengths;
  lengths.raw = raw;
  lengths.spans = static_cast<int64_t>(spans);
  lengths.inputs = raw - static_cast<int64_t>(noise) + lengths.spans + 1;
  lengths.targets = static_cast<int64_t>(noise) + lengths.spans + 1;
  return lengths;
}

// Appends tokens; the first of each run where mask == noise becomes the next sentinel, the rest of
// the run is dropped.
void replace_runs(std::span<const int32_t> tokens, std::span<const uint8_t> mask, uint8_t noise,
                  int32_t sentinel, std::vector<int32_t>& out) {
  bool in_run = false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (mask[i] != noise)
      out.push_back(tokens[i]);
    else if (!in_run)
      out.push_back(sentinel--);
    in_run = mask[i] == noise;
  }
}

}  // namespace

SpanCorruptionLengths span_corruption_lengths(int64_t input_length,
                                              const SpanCorruption& settings) {
  STMOE_CHECK(input_length >= 2, "span corruption: input length {}", input_length);
  STMOE_CHECK(settings.noise_density > 0 && settings.noise_density < 1,
              "span corruption: noise density {}", settings.noise_density);
  int64_t raw = input_length - 1;
  while (corrupted_lengths(raw + 1, settings).inputs <= input_length) ++raw;
  SpanCorruptionLengths lengths = corrupted_lengths(raw, settings);
  // As in t5: at this density the targets are made as long as the inputs, a rounder number.
  if (settings.noise_density == 0.5 && lengths.targets > lengths.inputs) {
    --lengths.raw;
    --lengths.targets;
  }
  return lengths;
}

NoiseCounts noise_counts(int64_t num_tokens, const SpanCorruption& settings) {
  const int64_t length = std::max<int64_t>(num_tokens, 2);
  const float noise =
      std::nearbyint(static_cast<float>(length) * static_cast<float>(settings.noise_density));
  NoiseCounts counts;
  counts.noise = std::min(std::max<int64_t>(static_cast<int64_t>(noise), 1), length - 1);
  const float spans = std::nearbyint(static_cast<float>(counts.noise) /
                                     static_cast<float>(settings.mean_span_length));
  counts.nonnoise = length - counts.noise;
  counts.spans = std::max<int64_t>(static_cast<int64_t>(spans), 1);
  return counts;
}

std::vector<int64_t> random_partition(int64_t items, int64_t parts, RandomStream& random) {
  STMOE_CHECK(parts >= 1 && parts <= items, "random_partition: {} parts of {} items", parts, items);
  // The parts' borders are a random subset of the items - 1 places between items, drawn by Floyd's
  // algorithm.
  std::vector<uint8_t> is_border(static_cast<size_t>(items), 0);
  for (int64_t j = items - parts; j < items - 1; ++j) {
    const uint64_t place = random.below(static_cast<uint64_t>(j) + 1);
    is_border[is_border[place] ? static_cast<size_t>(j) : place] = 1;
  }
  std::vector<int64_t> lengths;
  lengths.reserve(static_cast<size_t>(parts));
  int64_t begin = 0;
  for (int64_t i = 0; i + 1 < items; ++i)
    if (is_border[static_cast<size_t>(i)]) {
      lengths.push_back(i + 1 - begin);
      begin = i + 1;
    }
  lengths.push_back(items - begin);
  return lengths;
}

std::vector<uint8_t> noise_mask(std::span<const int64_t> nonnoise, std::span<const int64_t> noise,
                                int64_t num_tokens) {
  STMOE_CHECK(nonnoise.size() == noise.size(), "noise_mask: {} and {} runs", nonnoise.size(),
              noise.size());
  std::vector<uint8_t> mask;
  mask.reserve(static_cast<size_t>(num_tokens) + 1);
  for (size_t run = 0; run < noise.size(); ++run) {
    mask.insert(mask.end(), static_cast<size_t>(nonnoise[run]), 0);
    mask.insert(mask.end(), static_cast<size_t>(noise[run]), 1);
  }
  STMOE_CHECK(std::ssize(mask) >= num_tokens, "noise_mask: runs of {} tokens for {}", mask.size(),
              num_tokens);
  mask.resize(static_cast<size_t>(num_tokens));
  return mask;
}

Example apply_noise_mask(std::span<const int32_t> tokens, std::span<const uint8_t> mask,
                         int32_t first_sentinel) {
  STMOE_CHECK(tokens.size() == mask.size(), "apply_noise_mask: {} tokens, mask of {}",
              tokens.size(), mask.size());
  Example example;
  example.inputs.reserve(tokens.size() + 1);
  replace_runs(tokens, mask, 1, first_sentinel, example.inputs);
  replace_runs(tokens, mask, 0, first_sentinel, example.targets);
  return example;
}

Example corrupt_spans(std::span<const int32_t> tokens, const SpanCorruption& settings,
                      int32_t first_sentinel, RandomKey key) {
  const auto num_tokens = std::ssize(tokens);
  const NoiseCounts counts = noise_counts(num_tokens, settings);
  RandomStream random(key);
  const auto noise = random_partition(counts.noise, counts.spans, random);
  const auto nonnoise = random_partition(counts.nonnoise, counts.spans, random);
  return apply_noise_mask(tokens, noise_mask(nonnoise, noise, num_tokens), first_sentinel);
}

void append_eos_after_trim(Example& example, int64_t input_length, int64_t target_length) {
  auto finish = [](std::vector<int32_t>& tokens, int64_t length) {
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(length - 1)));
    tokens.push_back(kEosId);
  };
  finish(example.inputs, input_length);
  finish(example.targets, target_length);
}

}  // namespace stmoe
