// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/assign_slots.h"

#include <set>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/ops/choices.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("assign_slots takes first choices before second ones and drops what exceeds the capacity",
          "[ops][router]") {
  // Four tokens, two experts: first choices 0 0 1 0, second choices 1 1 0 1.
  const Tensor expert_NK = Tensor::from<int32_t>({4, 2}, {0, 1, 0, 1, 1, 0, 0, 1});
  REQUIRE(ints(assign_slots(expert_NK, {2, 1, 2, {}})) == Ints{0, 1, 1, -1, 0, -1, -1, -1});
  REQUIRE(ints(assign_slots(expert_NK, {2, 1, 4, {}})) == Ints{0, 1, 1, 2, 0, 3, 2, 3});
}

TEST_CASE("assign_slots counts each group from zero, at its own rows", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({6, 1}, {0, 0, 0, 0, 1, 0});
  REQUIRE(ints(assign_slots(expert_NK, {2, 2, 2, {}})) == Ints{0, 1, -1, 2, 2, 3});
}

TEST_CASE("assign_slots follows a token order within groups", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({6, 1}, {0, 0, 0, 0, 0, 0});
  const Tensor order_N = Tensor::from<int32_t>({6}, {2, 0, 1, 4, 5, 3});
  REQUIRE(ints(assign_slots(expert_NK, {1, 2, 2, order_N})) == Ints{1, -1, 0, -1, 2, 3});
}

TEST_CASE("assign_slots gives no slot to a missing choice and none that is used", "[ops][router]") {
  const Tensor expert_NK = draw_choices(600, 2, 5, 4);
  const SlotOptions options{5, 3, 40, {}};
  const Tensor slot_NK = assign_slots(expert_NK, options);
  const auto expert = ints(expert_NK), slot = ints(slot_NK);
  std::set<std::pair<int32_t, int32_t>> used;
  for (size_t i = 0; i < slot.size(); ++i) {
    if (expert[i] < 0) REQUIRE(slot[i] == -1);
    if (slot[i] < 0) continue;
    REQUIRE(slot[i] / 40 == static_cast<int32_t>(i / 400));
    REQUIRE(used.insert({expert[i], slot[i]}).second);
  }
  // 1200 entries, three in four present, 5 experts, 3 groups: every buffer is full.
  REQUIRE(used.size() == 5 * 3 * 40);
  set_num_threads(1);
  require_same_bits(assign_slots(expert_NK, options), slot_NK);
  set_num_threads(2);
}

TEST_CASE("assign_slots names an expert or an order that does not exist", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({2, 1}, {0, 2});
  REQUIRE_THROWS_WITH(assign_slots(expert_NK, {2, 1, 2, {}}),
                      Catch::Contains("expert 2 of 2 at token 1"));
  REQUIRE_THROWS_WITH(assign_slots(expert_NK, {3, 2, 2, Tensor::from<int32_t>({2}, {1, 1})}),
                      Catch::Contains("order names token 1 in group 0"));
}

TEST_CASE("a GPU assigns the CPU's slots", "[ops][router]") {
  struct Sizes {
    int64_t tokens, k, experts, groups, capacity;
  };
  for (const Sizes& s : {Sizes{0, 1, 3, 1, 2},
                         {1, 1, 1, 1, 1},
                         {6, 2, 3, 2, 0},
                         {1200, 1, 8, 1, 130},
                         {1290, 2, 37, 3, 20},
                         {700, 3, 5, 1, 700},
                         {520, 2, 2100, 2, 1},
                         {17000, 1, 3, 2, 3000}})
    for (bool is_ordered : {false, true}) {
      INFO(s.tokens << " tokens, " << s.experts << " experts");
      const Tensor expert_NK = draw_choices(s.tokens, s.k, s.experts, 7);
      SlotOptions options{s.experts, s.groups, s.capacity, {}};
      const int64_t group = s.tokens / s.groups;
      std::vector<int32_t> order;  // each group backwards
      for (int64_t n = 0; n < s.tokens; ++n)
        order.push_back(static_cast<int32_t>(n / group * group + group - 1 - n % group));
      if (is_ordered) options.order_N = Tensor::from<int32_t>({s.tokens}, order);
      const Ints slots = ints(assign_slots(expert_NK, options));
      if (is_ordered) options.order_N = options.order_N.on(Device::emu);
      REQUIRE(ints_on_host(assign_slots(expert_NK.on(Device::emu), options)) == slots);
    }
}

}  // namespace
}  // namespace stmoe::test
