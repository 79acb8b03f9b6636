// SPDX-License-Identifier: Apache-2.0
// Against tests/golden/span_corruption.json, made with t5 and seqio
// (scripts/golden/span_corruption.py).
#include "lib/data/span_corruption.h"

#include <map>
#include <numeric>

#include <nlohmann/json.hpp>

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

const nlohmann::json& golden() {
  static const auto json =
      nlohmann::json::parse(read_file(source_file("tests/golden/span_corruption.json")));
  return json;
}

SpanCorruption settings_of(const nlohmann::json& row) {
  return {row["noise_density"].get<double>(), row["mean_noise_span_length"].get<double>()};
}

template <class T>
std::vector<T> numbers(const nlohmann::json& list) {
  return list.get<std::vector<T>>();
}

}  // namespace

TEST_CASE("segment and target lengths are T5's", "[data][span_corruption]") {
  REQUIRE(golden()["length_table"].size() > 10);
  for (const auto& row : golden()["length_table"]) {
    INFO(row.dump());
    const auto lengths = span_corruption_lengths(row["inputs"].get<int64_t>(), settings_of(row));
    CHECK(lengths.raw == row["raw"].get<int64_t>());
    CHECK(lengths.targets == row["targets"].get<int64_t>());
  }
  CHECK(span_corruption_lengths(512, {}).spans == 28);
  CHECK(span_corruption_lengths(2048, {}).spans == 114);
}

TEST_CASE("numbers of noise tokens and spans are T5's for every segment length",
          "[data][span_corruption]") {
  REQUIRE(golden()["count_table"].size() > 500);
  for (const auto& row : golden()["count_table"]) {
    const NoiseCounts counts = noise_counts(row[0].get<int64_t>(), {});
    INFO("segment of " << row[0]);
    CHECK(counts.noise == row[1].get<int64_t>());
    CHECK(counts.spans == row[2].get<int64_t>());
    CHECK(counts.nonnoise == std::max<int64_t>(row[0].get<int64_t>(), 2) - counts.noise);
  }
}

TEST_CASE("masks, inputs and targets are T5's for the same random span lengths",
          "[data][span_corruption]") {
  REQUIRE(golden()["cases"].size() > 10);
  for (const auto& row : golden()["cases"]) {
    const auto n = row["n"].get<int64_t>();
    INFO("segment of " << n);
    const auto mask = noise_mask(numbers<int64_t>(row["nonnoise_span_lengths"]),
                                 numbers<int64_t>(row["noise_span_lengths"]), n);
    CHECK(mask == numbers<uint8_t>(row["mask"]));
    const Example example = apply_noise_mask(numbers<int32_t>(row["tokens"]), mask,
                                             row["vocab_size"].get<int32_t>() - 1);
    CHECK(example.inputs == numbers<int32_t>(row["inputs"]));
    CHECK(example.targets == numbers<int32_t>(row["targets"]));
  }
}

TEST_CASE("every split of 6 items into 3 parts is equally likely", "[data][span_corruption]") {
  std::map<std::vector<int64_t>, int> seen;
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    RandomStream random(RandomKey{7}.fold(static_cast<uint64_t>(i)));
    const auto parts = random_partition(6, 3, random);
    REQUIRE(parts.size() == 3);
    REQUIRE(std::accumulate(parts.begin(), parts.end(), int64_t{0}) == 6);
    ++seen[parts];
  }
  REQUIRE(seen.size() == 10);  // 5 choose 2
  // 2000 each with a standard deviation of 42.
  for (const auto& [parts, count] : seen) CHECK(std::abs(count - draws / 10) < 200);
}

TEST_CASE("splits at the borders of what is possible", "[data][span_corruption]") {
  RandomStream random(RandomKey{1});
  CHECK(random_partition(1, 1, random) == std::vector<int64_t>{1});
  CHECK(random_partition(5, 1, random) == std::vector<int64_t>{5});
  CHECK(random_partition(4, 4, random) == std::vector<int64_t>{1, 1, 1, 1});
  CHECK_THROWS_AS(random_partition(2, 3, random), BugError);
}

TEST_CASE("corrupting a segment loses nothing and gives the planned lengths",
          "[data][span_corruption]") {
  for (int64_t length : {1, 2, 3, 17, 141, 568}) {
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    std::iota(tokens.begin(), tokens.end(), 100);
    const Example example = corrupt_spans(tokens, {}, 32099, RandomKey{3}.fold(length));
    // Put each target span back where its sentinel stands in the inputs.
    std::map<int32_t, std::vector<int32_t>> spans;
    int32_t current = 0;
    for (int32_t token : example.targets)
      if (token >= 32000)
        current = token;
      else
        spans[current].push_back(token);
    std::vector<int32_t> restored;
    for (int32_t token : example.inputs)
      if (token < 32000)
        restored.push_back(token);
      else
        restored.insert(restored.end(), spans[token].begin(), spans[token].end());
    CHECK(restored == tokens);
  }
  std::vector<int32_t> full(568, 5);
  Example example = corrupt_spans(full, {}, 32099, RandomKey{1});
  append_eos_after_trim(example, 512, 114);
  CHECK(example.inputs.size() == 512);
  CHECK(example.targets.size() == 114);
  CHECK(example.inputs.back() == kEosId);
  CHECK(example.targets.back() == kEosId);
  append_eos_after_trim(example, 10, 5);
  CHECK(example.inputs.size() == 10);
  CHECK(example.targets.size() == 5);
  CHECK(example.targets.back() == kEosId);
}

TEST_CASE("a key gives the same corruption again and another key another one",
          "[data][span_corruption]") {
  std::vector<int32_t> tokens(300);
  std::iota(tokens.begin(), tokens.end(), 3);
  const Example first = corrupt_spans(tokens, {}, 32099, RandomKey{1});
  CHECK(corrupt_spans(tokens, {}, 32099, RandomKey{1}).inputs == first.inputs);
  CHECK(corrupt_spans(tokens, {}, 32099, RandomKey{2}).inputs != first.inputs);
}
