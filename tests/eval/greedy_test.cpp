// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/greedy.h"

#include <catch2/catch.hpp>

#include "tests/model/golden.h"

namespace stmoe {

TEST_CASE("greedy decoding writes what Hugging Face's generate writes", "[eval][golden][decode]") {
  for (const std::string name : {"t5_relu", "t5_geglu", "t5_long", "switch"}) {
    const test::Golden golden(name, DType::f32);
    const Tensor expected = golden.read("generated");
    const auto texts = decode_greedily(golden.model(), golden.read("generation_tokens"),
                                       expected.dim(1), DType::f32);
    REQUIRE(static_cast<int64_t>(texts.size()) == expected.dim(0));
    for (size_t row = 0; row < texts.size(); ++row) {
      // The file has EOS (1) and padding after it.
      const Tensor line =
          expected.slice(0, static_cast<int64_t>(row), static_cast<int64_t>(row) + 1);
      std::vector<int32_t> wanted(line.span<int32_t>().begin(), line.span<int32_t>().end());
      wanted.erase(std::ranges::find(wanted, 1), wanted.end());
      INFO(name << " row " << row);
      CHECK(texts[row] == wanted);
    }
  }
}

TEST_CASE("greedy decoding stops at its longest length", "[eval][decode]") {
  const test::Golden golden("switch", DType::f32);
  const Tensor tokens = golden.read("generation_tokens");
  const auto longer = decode_greedily(golden.model(), tokens, 12, DType::f32);
  const auto shorter = decode_greedily(golden.model(), tokens, 3, DType::f32);
  for (size_t row = 0; row < shorter.size(); ++row) {
    CHECK(shorter[row].size() <= 3);
    CHECK(std::equal(shorter[row].begin(), shorter[row].end(), longer[row].begin()));
  }
}

}  // namespace stmoe
