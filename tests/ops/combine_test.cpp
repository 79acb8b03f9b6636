// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/combine.h"

#include <catch2/catch.hpp>

#include "lib/ops/assign_slots.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

struct Sizes {
  int64_t tokens, width, k, experts, capacity;
  int64_t padded = 0;  // rows of every expert
};

OpCase make_case(const Sizes& s) {
  const Tensor expert_NK = draw_choices(s.tokens, s.k, s.experts, 6);
  const DispatchPlan plan =
      plan_dispatch(expert_NK, assign_slots(expert_NK, {s.experts, 1, s.capacity, {}}), s.experts,
                    s.capacity, s.padded);
  OpCase result;
  result.name = format("combine {}x{}, {} choices of {} experts, capacity {}, padded {}", s.tokens,
                       s.width, s.k, s.experts, s.capacity, s.padded);
  OpInput weights{{s.tokens, s.k}, 0, 1};
  weights.is_weight = true;
  result.inputs = {{{plan.num_rows(), s.width}}, weights};
  result.call = [=](const OpArguments& x) {
    return combine(x[0], x[1], on_device(plan, x.device));
  };
  result.reference = [=](const OpValues& x) {
    OpValues y(1);
    y[0].resize(static_cast<size_t>(s.tokens * s.width));
    const auto row = ints(plan.row_NK);
    for (size_t i = 0; i < row.size(); ++i)
      for (int64_t d = 0; row[i] >= 0 && d < s.width; ++d)
        y[0][i / static_cast<size_t>(s.k) * static_cast<size_t>(s.width) +
             static_cast<size_t>(d)] += x[1][i] * x[0][static_cast<size_t>(row[i] * s.width + d)];
    return y;
  };
  // f32: dot products of up to 520 terms. bf16: both paths round the same rows, dots add up.
  result.gradient_tolerance.f32 = {1e-4, 1e-5};
  result.gradient_tolerance.bf16 = {5e-2, 1e-2};
  return result;
}

TEST_CASE("combine sums weighted rows, dropped choices adding nothing", "[ops][router]") {
  check_ops({make_case({1, 1, 1, 1, 1}), make_case({0, 4, 1, 2, 2}), make_case({6, 3, 1, 2, 2}),
             make_case({10, 7, 2, 4, 3}), make_case({300, 33, 1, 5, 40}),
             make_case({130, 520, 3, 4, 200})});
}

TEST_CASE("combine reads no padding, and gives it no gradient", "[ops][router]") {
  check_ops({make_case({0, 4, 1, 2, 2, 64}), make_case({10, 7, 2, 4, 3, 5}),
             make_case({130, 520, 3, 4, 100, 128})});
}

TEST_CASE("combine needs one weight per choice", "[ops][router]") {
  const DispatchPlan plan =
      plan_dispatch(Tensor::zeros({1, 1}, DType::i32), Tensor::zeros({1, 1}, DType::i32), 1, 2);
  REQUIRE_THROWS_WITH(combine(Var(Tensor::zeros({1, 3}, DType::bf16)),
                              Var(Tensor::zeros({1, 1}, DType::bf16)), plan),
                      Catch::Contains("weights are bf16 [1, 1], expected f32 [1, 1]"));
}

TEST_CASE("time of combine", "[.bench]") {
  time_op(make_case({4096, 512, 1, 8, 640}));
  time_op(make_case({4096, 512, 1, 64, 80}));
  time_op(make_case({4096, 512, 2, 64, 160}));
}

}  // namespace
}  // namespace stmoe::test
