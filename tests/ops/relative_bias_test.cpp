// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/relative_bias.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/base/files.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

// Row by row from the published table (T5: bidirectional, 32 buckets, distance 128).
int64_t table_bucket(int64_t relative) {
  constexpr int64_t kFirst[] = {8, 12, 16, 23, 32, 46, 64, 91};
  const int64_t distance = std::abs(relative);
  int64_t bucket = std::min<int64_t>(distance, 8);
  for (int i = 1; i < 8; ++i) bucket += distance >= kFirst[i];
  return bucket + (relative > 0 ? 16 : 0);
}

test::OpCase bias_case(int64_t heads, int64_t first, int64_t count) {
  test::OpCase op_case;
  op_case.name = format("relative_bias {} heads, {} positions from {}", heads, count, first);
  op_case.inputs = {{.shape = {heads, 32}}};
  op_case.call = [=](const test::OpArguments& x) { return relative_bias(x[0], first, count, {}); };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> bias;
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t r = first; r < first + count; ++r)
        bias.push_back(x[0][static_cast<size_t>(h * 32 + table_bucket(r))]);
    return test::OpValues{bias};
  };
  return op_case;
}

}  // namespace

TEST_CASE("relative buckets are those of Hugging Face's T5", "[ops][relative_bias][golden]") {
  const auto golden =
      nlohmann::json::parse(read_file(STMOE_SOURCE_DIR "/tests/golden/relative_buckets.json"));
  const std::vector<int64_t> positions = golden["relative_positions"];
  REQUIRE(positions.size() > 600);
  for (bool is_bidirectional : {true, false}) {
    const RelativeBuckets buckets{golden["num_buckets"], golden["max_distance"], is_bidirectional};
    const std::vector<int64_t> expected = golden[is_bidirectional ? "bidirectional" : "causal"];
    REQUIRE(expected.size() == positions.size());
    for (size_t i = 0; i < positions.size(); ++i) {
      INFO("relative position " << positions[i] << ", bidirectional " << is_bidirectional);
      REQUIRE(relative_bucket(positions[i], buckets) == expected[i]);
    }
  }
}

TEST_CASE("a distance on a border of a bucket falls into it", "[ops][relative_bias]") {
  // max_exact 16, distance 1024: bucket 16 + k starts at 16 * 2^(6 k / 16), exactly at 16, 32 x
  // 2^(..)
  const RelativeBuckets buckets{32, 1024, false};
  CHECK(relative_bucket(-16, buckets) == 16);
  CHECK(relative_bucket(-127, buckets) == 23);
  CHECK(relative_bucket(-128, buckets) == 24);  // 16 * 2^3
  CHECK(relative_bucket(-1023, buckets) == 31);
  CHECK(relative_bucket(-(int64_t{1} << 40), buckets) == 31);
  CHECK(relative_bucket(5, buckets) == 0);
}

TEST_CASE("relative_bias looks up one value per head and relative position",
          "[ops][relative_bias]") {
  test::check_ops(
      {bias_case(3, -5, 11), bias_case(1, 0, 1), bias_case(2, 4, 0), bias_case(4, -130, 261)});
}

TEST_CASE("relative_bias refuses a table of another number of buckets", "[ops][relative_bias]") {
  CHECK_THROWS_WITH(relative_bias(Var(Tensor::zeros({4, 31}, DType::f32)), 0, 3, {}),
                    Catch::Contains("table is f32 [4, 31], expected [heads, 32]"));
}

}  // namespace stmoe
