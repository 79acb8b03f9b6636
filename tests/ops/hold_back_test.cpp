// SPDX-License-Identifier: Apache-2.0
// Worked examples are in tests/moe/soft_router_test.cpp.
#include "lib/ops/hold_back.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase hold_case(int64_t groups, int64_t tokens, int64_t experts, bool is_masked) {
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  for (size_t n = 1; is_masked && n < mask.size(); n += 3) mask[n] = 0;
  constexpr double kMargin = 0.0625;
  OpCase result;
  result.name = format("hold_back {}x{}x{}{}", groups, tokens, experts, is_masked ? " masked" : "");
  result.inputs = {
      {.shape = {groups * tokens, experts}, .low = 0.01, .high = 1, .is_differentiable = false}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    const Tensor mask_N = Tensor::from<int32_t>({groups * tokens}, mask);
    return Var(
        hold_back(x[0].value(), groups, kMargin, is_masked ? x.on_device(mask_N) : Tensor()));
  };
  result.reference = [=](const OpValues& x) {
    const auto width = static_cast<size_t>(experts);
    OpValues y = {std::vector<double>(x[0].size())};
    std::vector<double> totals;
    for (size_t n = 0; n < mask.size(); ++n) {
      if (n % static_cast<size_t>(tokens) == 0) totals.assign(width, 0.0);
      if (!mask[n]) continue;
      double mean = 0, kept = 0;
      for (double total : totals) mean += total / static_cast<double>(experts);
      for (size_t e = 0; e < width; ++e) {
        y[0][n * width + e] = totals[e] - mean > kMargin ? -1e30 : 0;
        if (totals[e] - mean <= kMargin) kept += x[0][n * width + e];
      }
      for (size_t e = 0; e < width; ++e)
        if (y[0][n * width + e] == 0) totals[e] += x[0][n * width + e] / kept;
    }
    return y;
  };
  return result;
}

TEST_CASE("hold_back lets experts wait that were given more than the mean and a margin",
          "[ops][router]") {
  check_ops({hold_case(1, 1, 1, false), hold_case(3, 20, 4, true), hold_case(2, 30, 40, false),
             hold_case(1, 25, 200, true), hold_case(1, 0, 3, false)});
}

TEST_CASE("hold_back refuses groups that do not divide the tokens", "[ops][router]") {
  REQUIRE_THROWS_WITH(hold_back(Tensor::zeros({5, 3}, DType::f32), 2, 0.5),
                      Catch::Contains("2 groups"));
}

}  // namespace
}  // namespace stmoe::test
