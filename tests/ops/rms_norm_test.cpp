// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/rms_norm.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe {
namespace {

constexpr double kEps = 1e-6;

test::OpCase rms_norm_case(const Shape& shape) {
  const auto width = static_cast<size_t>(shape[-1]);
  test::OpCase op_case;
  op_case.name = "rms_norm " + shape.text();
  op_case.inputs = {{.shape = shape, .low = -2, .high = 2},
                    {.shape = {shape[-1]}, .low = 0.5, .high = 1.5, .is_weight = true}};
  op_case.call = [](const test::OpArguments& x) { return rms_norm(x[0], x[1], kEps); };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> y;
    for (size_t row = 0; row < x[0].size(); row += width) {
      double squares = 0;
      for (size_t d = 0; d < width; ++d) squares += x[0][row + d] * x[0][row + d];
      const double root = std::sqrt(squares / static_cast<double>(width) + kEps);
      for (size_t d = 0; d < width; ++d) y.push_back(x[0][row + d] / root * x[1][d]);
    }
    return test::OpValues{y};
  };
  return op_case;
}

}  // namespace

TEST_CASE("rms_norm divides by the root of the mean square", "[ops][rms_norm]") {
  test::check_ops({rms_norm_case({5, 24}), rms_norm_case({2, 3, 7}), rms_norm_case({1}),
                   rms_norm_case({0, 8})});
}

TEST_CASE("rms_norm of rows of any length", "[ops][rms_norm]") {
  for (auto op_case :
       {rms_norm_case({5, 1024}), rms_norm_case({3, 2001}), rms_norm_case({2, 8200})}) {
    op_case.gradient_tolerance.bf16 = {2e-2, 2e-2};
    test::check_op(op_case);
  }
}

TEST_CASE("rms_norm sums the gradient of the scale in fixed chunks of rows", "[ops][rms_norm]") {
  auto op_case = rms_norm_case({300, 40});
  op_case.gradient_tolerance.f32 = {1e-4, 1e-5};  // sums of 300 terms of either sign
  op_case.gradient_tolerance.bf16 = {1e-2, 1e-2};
  test::check_op(op_case);
}

TEST_CASE("rms_norm of zeros is zero, and of huge values finite", "[ops][rms_norm]") {
  const Var scale(Tensor::full({4}, DType::f32, 3));
  test::require_close(rms_norm(Var(Tensor::zeros({1, 4}, DType::f32)), scale).value(), {0, 0, 0, 0},
                      test::Tolerance::exact());
  const Tensor huge = Tensor::from<float>({1, 4}, {1e15f, -1e15f, 1e15f, -1e15f});
  test::require_close(rms_norm(Var(huge), scale).value(), {3, -3, 3, -3}, {0, 1e-6});
}

TEST_CASE("rms_norm refuses a scale of another width or type", "[ops][rms_norm]") {
  const Var x(Tensor::zeros({2, 3}, DType::bf16));
  CHECK_THROWS_WITH(rms_norm(x, Var(Tensor::zeros({4}, DType::f32))),
                    Catch::Contains("scale is f32 [4], expected f32 [3]"));
  CHECK_THROWS_AS(rms_norm(x, Var(Tensor::zeros({3}, DType::bf16))), BugError);
  CHECK_THROWS_AS(
      rms_norm(Var(Tensor::zeros({2, 0}, DType::f32)), Var(Tensor::zeros({0}, DType::f32))),
      BugError);
}

TEST_CASE("rms_norm speed", "[ops][rms_norm][.bench]") {
  test::time_op(rms_norm_case({4096, 512}));
  test::time_op(rms_norm_case({4096, 2048}));
}

}  // namespace stmoe
