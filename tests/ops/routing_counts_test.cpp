// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/routing_counts.h"

#include <catch2/catch.hpp>

#include "lib/ops/assign_slots.h"
#include "tests/ops/choices.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Numbers = std::vector<double>;

TEST_CASE("routing_counts counts choices by expert, dropped ones, and tokens without a place",
          "[ops][router]") {
  const Tensor expert = Tensor::from<int32_t>({4, 2}, {0, 1, 2, 0, -1, -1, 0, -1});
  const Tensor slot = Tensor::from<int32_t>({4, 2}, {0, -1, -1, -1, -1, -1, 1, -1});
  const Tensor real = Tensor::from<int32_t>({4}, {1, 0, 1, 1});
  REQUIRE(values_of(routing_counts(expert, slot, 4)) == Numbers{3, 1, 1, 0, 5, 3, 3, 1});
  REQUIRE(values_of(routing_counts(expert, slot, 4, {true})) == Numbers{3, 1, 1, 0, 5, 3, 4, 2});
  REQUIRE(values_of(routing_counts(expert, slot, 4, {true, real})) ==
          Numbers{3, 1, 1, 0, 5, 3, 3, 1});
  REQUIRE_THROWS_WITH(routing_counts(expert, slot, 2), Catch::Contains("expert 2 of 2 at token 1"));
}

TEST_CASE("a GPU counts what the CPU counts", "[ops][router]") {
  for (const auto& [tokens, k, experts] :
       {std::tuple<int64_t, int64_t, int64_t>{0, 1, 2}, {1, 1, 1}, {900, 2, 37}, {300, 3, 2100}}) {
    const Tensor expert = draw_choices(tokens, k, experts, 6);
    const Tensor slot = assign_slots(expert, {experts, 1, 5, {}});
    const Tensor real = draw_choices(tokens, 1, 2, 0).reshape({tokens});
    const Tensor expert_there = expert.on(Device::emu), slot_there = slot.on(Device::emu);
    for (const RoutedTokens& counted :
         {RoutedTokens{}, RoutedTokens{true}, RoutedTokens{true, real}}) {
      RoutedTokens there = counted;
      if (there.real_N.defined()) there.real_N = real.on(Device::emu);
      const Tensor counts = routing_counts(expert_there, slot_there, experts, there);
      require_same_bits(counts.on(Device::cpu), routing_counts(expert, slot, experts, counted));
    }
  }
}

}  // namespace
}  // namespace stmoe::test
