// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/assign_in_rounds.h"

#include <set>

#include <catch2/catch.hpp>

#include "tests/ops/choices.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("assign_in_rounds tries the next choice where there is no place", "[ops][router]") {
  const Tensor expert = Tensor::from<int32_t>({5, 2}, {0, 1, 0, 1, 0, 1, 1, 0, -1, -1});
  // Round 1: 0 takes expert 0, 3 takes expert 1. Round 2: nobody finds room.
  RoundPlaces places = assign_in_rounds(expert, 2, 1, 1);
  REQUIRE(ints(places.expert_N1) == Ints{0, 0, 0, 1, -1});
  REQUIRE(ints(places.slot_N1) == Ints{0, -1, -1, 0, -1});
  // Room for two: 2 goes to expert 1, behind 3.
  places = assign_in_rounds(expert, 2, 1, 2);
  REQUIRE(ints(places.expert_N1) == Ints{0, 0, 1, 1, -1});
  REQUIRE(ints(places.slot_N1) == Ints{0, 1, 1, 0, -1});
  REQUIRE(places.slot_N1.shape() == Shape{5, 1});
  REQUIRE_THROWS_WITH(assign_in_rounds(expert, 1, 1, 1), Catch::Contains("expert 1 of 1"));
  REQUIRE_THROWS_WITH(assign_in_rounds(expert, 2, 2, 1), Catch::Contains("2 groups of 5"));
}

TEST_CASE("assign_in_rounds fills places without gaps, group by group", "[ops][router]") {
  constexpr int64_t kGroups = 4, kTokens = 50, kExperts = 6, kCapacity = 8;
  const Tensor expert = draw_choices(kGroups * kTokens, 4, kExperts, 9);
  const RoundPlaces places = assign_in_rounds(expert, kExperts, kGroups, kCapacity);
  const Ints slot = ints(places.slot_N1), taker = ints(places.expert_N1), choice = ints(expert);
  std::set<std::pair<int32_t, int32_t>> used;
  for (size_t n = 0; n < slot.size(); ++n)
    if (slot[n] >= 0) {
      REQUIRE(slot[n] / kCapacity == static_cast<int64_t>(n) / kTokens);
      REQUIRE(used.insert({taker[n], slot[n]}).second);
    }
  for (const auto& [e, s] : used)
    if (s % kCapacity > 0) REQUIRE(used.contains({e, s - 1}));
  // Whoever is left has tried only full experts.
  for (size_t n = 0; n < slot.size(); ++n)
    for (size_t j = 4 * n; slot[n] < 0 && j < 4 * n + 4; ++j)
      if (choice[j] >= 0) {
        const auto group = static_cast<int64_t>(n) / kTokens;
        REQUIRE(
            used.contains({choice[j], static_cast<int32_t>(group * kCapacity + kCapacity - 1)}));
      }
}

TEST_CASE("a GPU assigns the CPU's places in every round", "[ops][router]") {
  struct Sizes {
    int64_t tokens, k, experts, groups, capacity;
  };
  for (const Sizes& s :
       {Sizes{0, 1, 2, 1, 3}, {1, 2, 2, 1, 0}, {600, 4, 37, 2, 7}, {700, 2, 5, 1, 140}}) {
    const Tensor expert = draw_choices(s.tokens, s.k, s.experts, 8);
    const RoundPlaces host = assign_in_rounds(expert, s.experts, s.groups, s.capacity);
    const RoundPlaces places =
        assign_in_rounds(expert.on(Device::emu), s.experts, s.groups, s.capacity);
    REQUIRE(ints_on_host(places.expert_N1) == ints(host.expert_N1));
    REQUIRE(ints_on_host(places.slot_N1) == ints(host.slot_N1));
  }
}

}  // namespace
}  // namespace stmoe::test
