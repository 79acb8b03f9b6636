// SPDX-License-Identifier: Apache-2.0
// Tables made with google/flaxformer (scripts/golden/routing.py).
#include "lib/moe/capacity.h"

#include <fstream>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

nlohmann::json golden() {
  return nlohmann::json::parse(std::ifstream(STMOE_SOURCE_DIR "/tests/golden/routing.json"));
}

TEST_CASE("expert_capacity rounds halves to even and respects the minimum",
          "[moe][capacity][golden]") {
  const auto table = golden()["capacity_table"];
  REQUIRE(table.size() > 10);
  for (const auto& row : table) {
    CAPTURE(row);
    REQUIRE(expert_capacity(row["capacity_factor"], row["tokens_per_group"], row["num_experts"],
                            row["min_capacity"]) == row["capacity"].get<int64_t>());
  }
}

TEST_CASE("num_routing_groups finds flaxformer's numbers of groups", "[moe][capacity][golden]") {
  const auto table = golden()["group_table"];
  REQUIRE(table.size() > 10);
  for (const auto& row : table) {
    CAPTURE(row);
    const int64_t replicas = row["num_data_replicas"], experts = row["num_experts"];
    REQUIRE(num_routing_groups(row["num_tokens"], row["max_group_size"], replicas * experts) ==
            row["num_groups"].get<int64_t>());
  }
}

TEST_CASE("num_routing_groups of one process", "[moe][capacity]") {
  REQUIRE(num_routing_groups(4096, 0) == 1);
  REQUIRE(num_routing_groups(4096, 4096) == 1);
  REQUIRE(num_routing_groups(4096, 1024) == 4);
  REQUIRE(num_routing_groups(4096, 1000) == 4);
  REQUIRE(num_routing_groups(912, 400) == 2);
  REQUIRE(num_routing_groups(7, 2) == 7);
  REQUIRE(num_routing_groups(3, 100) == 1);
}

TEST_CASE("groups are a batch, its sequences, or as many tokens as asked", "[moe][capacity]") {
  REQUIRE(TokenGroups{"batch", 0}.number(8, 512) == 1);
  REQUIRE(TokenGroups{"sequence", 0}.number(8, 512) == 8);
  REQUIRE(TokenGroups{"sequence", 0}.number(8, 114) == 8);
  REQUIRE(TokenGroups{"tokens", 0}.number(8, 512) == 1);
  REQUIRE(TokenGroups{"tokens", 1024}.number(8, 512) == 4);
  // 912 tokens are not 8 sequences here, but a run of 912 / 2.
  REQUIRE(TokenGroups{"tokens", 400}.number(8, 114) == 2);
}

}  // namespace
}  // namespace stmoe::test
