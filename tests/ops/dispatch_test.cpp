// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch.h"

#include <array>

#include <catch2/catch.hpp>

#include "lib/ops/assign_slots.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

struct Sizes {
  int64_t tokens, width, k, experts, capacity;
  int64_t padded = 0;  // rows of every expert
};

DispatchPlan make_plan(const Sizes& s) {
  const Tensor expert_NK = draw_choices(s.tokens, s.k, s.experts, 6);
  return plan_dispatch(expert_NK, assign_slots(expert_NK, {s.experts, 1, s.capacity, {}}),
                       s.experts, s.capacity, s.padded);
}

OpCase make_case(const Sizes& s) {
  const DispatchPlan plan = make_plan(s);
  OpCase result;
  result.name = format("dispatch {}x{}, {} choices of {} experts, capacity {}, padded {}", s.tokens,
                       s.width, s.k, s.experts, s.capacity, s.padded);
  result.inputs = {{{s.tokens, s.width}}};
  result.call = [=](const OpArguments& x) { return dispatch(x[0], on_device(plan, x.device)); };
  result.reference = [=](const OpValues& x) {
    OpValues rows(1);
    rows[0].resize(static_cast<size_t>(plan.entry_R.numel() * s.width));
    const auto row = ints(plan.row_NK);
    for (size_t i = 0; i < row.size(); ++i)
      for (int64_t d = 0; row[i] >= 0 && d < s.width; ++d)
        rows[0][static_cast<size_t>(row[i] * s.width + d)] =
            x[0]
             [i / static_cast<size_t>(s.k) * static_cast<size_t>(s.width) + static_cast<size_t>(d)];
    return rows;
  };
  return result;
}

TEST_CASE("dispatch copies each token to its rows and leaves unfilled ones zero", "[ops][router]") {
  check_ops({make_case({1, 1, 1, 1, 1}), make_case({0, 4, 1, 2, 2}), make_case({6, 3, 1, 2, 2}),
             make_case({10, 7, 2, 4, 3}), make_case({300, 33, 1, 5, 40}),
             make_case({130, 520, 3, 4, 200})});
}

TEST_CASE("dispatch leaves the padding of every expert zero", "[ops][router]") {
  check_ops({make_case({0, 4, 1, 2, 2, 64}), make_case({10, 7, 2, 4, 3, 5}),
             make_case({130, 520, 3, 4, 100, 128})});
}

TEST_CASE("plan_dispatch stores both directions of the permutation", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({3, 2}, {1, 0, 1, -1, 0, 1});
  const Tensor slot_NK = Tensor::from<int32_t>({3, 2}, {0, 1, -1, 0, 0, 2});
  const DispatchPlan plan = plan_dispatch(expert_NK, slot_NK, 2, 3);
  REQUIRE(ints(plan.row_NK) == Ints{2, 0, -1, -1, 1, 3});
  REQUIRE(ints(plan.entry_R) == Ints{1, 4, 0, 5, -1, -1});
  REQUIRE(ints(plan.first_row_E1) == Ints{0, 2, 4});
  REQUIRE(plan_dispatch(expert_NK, Tensor::full({3, 2}, DType::i32, -1), 2, 1).num_rows() == 2);
}

TEST_CASE("plan_dispatch gives every expert the same rows where it is padded", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({3, 2}, {1, 0, 1, -1, 0, 1});
  const Tensor slot_NK = Tensor::from<int32_t>({3, 2}, {0, 1, -1, 0, 0, 2});
  const DispatchPlan plan = plan_dispatch(expert_NK, slot_NK, 2, 3, 4);
  REQUIRE(ints(plan.row_NK) == Ints{4, 1, -1, -1, 0, 6});
  REQUIRE(ints(plan.entry_R) == Ints{4, 1, -1, -1, 0, -1, 5, -1});
  REQUIRE(ints(plan.first_row_E1) == Ints{0, 4, 8});
  REQUIRE(plan.ranges.rows_per_expert == 4);
}

TEST_CASE("rows of experts are padded on a GPU unless that is most of them", "[ops][router]") {
  REQUIRE(rows_per_expert(Device::cpu, 4096, 8, 640) == 0);
  REQUIRE(rows_per_expert(Device::cuda, 65536, 128, 640) == 640);
  REQUIRE(rows_per_expert(Device::cuda, 65536, 128, 641) == 768);
  REQUIRE(rows_per_expert(Device::emu, 16384, 128, 142) == 192);
  REQUIRE(rows_per_expert(Device::cuda, 65536, 128, 65536) == 0);
  REQUIRE(rows_per_expert(Device::cuda, 8 * 65536, 8, 65536) == 65536);  // every expert all tokens
  REQUIRE(rows_per_expert(Device::cuda, 64, 8, 64) == 64);
  const PlanScope planning(Device::cuda);
  REQUIRE(rows_per_expert(Device::plan, 65536, 128, 640) == 640);
}

TEST_CASE("a GPU plans what the CPU plans", "[ops][router]") {
  for (const auto& [tokens, k, experts, capacity] : {std::array<int64_t, 4>{0, 1, 3, 4},
                                                     {1, 1, 1, 1},
                                                     {700, 2, 5, 100},
                                                     {333, 1, 70, 4},
                                                     {600, 3, 2100, 2},
                                                     {1100, 2, 40, 1100},
                                                     {9000, 1, 3, 9000}})
    for (bool is_padded : {false, true}) {
      const Tensor expert_NK = draw_choices(tokens, k, experts, 5);
      const Tensor slot_NK = assign_slots(expert_NK, {experts, 1, capacity, {}});
      const int64_t rows = is_padded ? capacity + 3 : 0;
      const DispatchPlan host = plan_dispatch(expert_NK, slot_NK, experts, capacity, rows);
      const DispatchPlan plan = plan_dispatch(expert_NK.on(Device::emu), slot_NK.on(Device::emu),
                                              experts, capacity, rows);
      REQUIRE(plan.row_NK.device() == Device::emu);
      REQUIRE(ints_on_host(plan.row_NK) == ints(host.row_NK));
      REQUIRE(ints_on_host(plan.entry_R) == ints(host.entry_R));
      REQUIRE(ints_on_host(plan.first_row_E1) == ints(host.first_row_E1));
      REQUIRE(plan.ranges.rows_per_expert == rows);
      if (!is_padded) REQUIRE(ints(plan.ranges.first_row_E1) == ints(host.first_row_E1));
    }
}

TEST_CASE("plan_dispatch refuses a slot that is used twice or does not exist", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({2, 1}, {1, 1});
  REQUIRE_THROWS_WITH(plan_dispatch(expert_NK, Tensor::from<int32_t>({2, 1}, {2, 2}), 2, 3),
                      Catch::Contains("expert 1 slot 2 is used by entries 0 and 1"));
  REQUIRE_THROWS_WITH(plan_dispatch(expert_NK, Tensor::from<int32_t>({2, 1}, {0, 3}), 2, 3),
                      Catch::Contains("expert 1 slot 3 of 2 experts with 3 slots"));
}

TEST_CASE("time of dispatch", "[.bench]") {
  time_op(make_case({4096, 512, 1, 8, 640}));
  time_op(make_case({4096, 512, 1, 64, 80}));
  time_op(make_case({4096, 512, 2, 64, 160}));
}

}  // namespace
}  // namespace stmoe::test
