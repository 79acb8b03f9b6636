// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch.h"

#include <catch2/catch.hpp>

#include "lib/ops/assign_slots.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

struct Sizes {
  int64_t tokens, width, k, experts, capacity;
};

DispatchPlan make_plan(const Sizes& s) {
  const Tensor expert_NK = draw_choices(s.tokens, s.k, s.experts, 6);
  return plan_dispatch(expert_NK, assign_slots(expert_NK, {s.experts, 1, s.capacity, {}}),
                       s.experts, s.capacity);
}

OpCase make_case(const Sizes& s) {
  const DispatchPlan plan = make_plan(s);
  OpCase result;
  result.name = format("dispatch {}x{}, {} choices of {} experts, capacity {}", s.tokens, s.width,
                       s.k, s.experts, s.capacity);
  result.inputs = {{{s.tokens, s.width}}};
  result.call = [=](const OpArguments& x) { return dispatch(x[0], plan); };
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

TEST_CASE("plan_dispatch stores both directions of the permutation", "[ops][router]") {
  const Tensor expert_NK = Tensor::from<int32_t>({3, 2}, {1, 0, 1, -1, 0, 1});
  const Tensor slot_NK = Tensor::from<int32_t>({3, 2}, {0, 1, -1, 0, 0, 2});
  const DispatchPlan plan = plan_dispatch(expert_NK, slot_NK, 2, 3);
  REQUIRE(ints(plan.row_NK) == Ints{2, 0, -1, -1, 1, 3});
  REQUIRE(ints(plan.entry_R) == Ints{1, 4, 0, 5, -1, -1});
  REQUIRE(ints(plan.first_row_E1) == Ints{0, 2, 4});
  REQUIRE(plan_dispatch(expert_NK, Tensor::full({3, 2}, DType::i32, -1), 2, 1).num_rows() == 2);
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
