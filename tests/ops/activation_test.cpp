// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/activation.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe {
namespace {

test::OpCase relu_case(const Shape& shape) {
  test::OpCase op_case;
  op_case.name = "relu " + shape.text();
  op_case.inputs = {{.shape = shape, .low = -2, .high = 2, .away_from_zero = 1e-3}};
  op_case.call = [](const test::OpArguments& x) { return relu(x[0]); };
  op_case.reference = [](const test::OpValues& x) {
    auto y = x[0];
    for (double& value : y) value = std::max(value, 0.0);
    return test::OpValues{y};
  };
  return op_case;
}

test::OpCase geglu_case(const Shape& shape) {
  test::OpCase op_case;
  op_case.name = "geglu " + shape.text();
  op_case.inputs = {{.shape = shape, .low = -4, .high = 4}, {.shape = shape, .low = -1, .high = 1}};
  op_case.call = [](const test::OpArguments& x) { return geglu(x[0], x[1]); };
  op_case.reference = [](const test::OpValues& x) {
    std::vector<double> y;
    for (size_t i = 0; i < x[0].size(); ++i) {
      const double a = x[0][i];
      const double u = std::sqrt(2 / std::numbers::pi) * (a + 0.044715 * a * a * a);
      y.push_back(0.5 * a * (1 + std::tanh(u)) * x[1][i]);
    }
    return test::OpValues{y};
  };
  op_case.flops = 12.0 * static_cast<double>(shape.numel());
  return op_case;
}

}  // namespace

TEST_CASE("relu keeps what is positive", "[ops][activation]") {
  test::check_ops({relu_case({4, 33}), relu_case({1}), relu_case({3, 0}), relu_case({3, 20000})});
}

TEST_CASE("relu passes no gradient at zero and hides no NaN", "[ops][activation]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::from<float>({3}, {0.0f, nan, -std::numeric_limits<float>::infinity()});
  test::require_close(relu(Var(x)).value(), {0, nan, 0}, test::Tolerance::exact());
}

TEST_CASE("geglu is the tanh form of gelu times the other branch", "[ops][activation]") {
  test::check_ops(
      {geglu_case({5, 16}), geglu_case({1, 1}), geglu_case({0, 4}), geglu_case({2, 20001})});
}

TEST_CASE("geglu saturates without overflow", "[ops][activation]") {
  const Tensor gate = Tensor::from<float>({4}, {-1e4f, -60, 60, 1e4f});
  const Var one(Tensor::full({4}, DType::f32, 1));
  test::require_close(geglu(Var(gate), one).value(), {0, 0, 60, 1e4}, test::Tolerance::exact());
}

TEST_CASE("geglu refuses operands of unlike shape or type", "[ops][activation]") {
  const Var a(Tensor::zeros({2, 3}, DType::f32));
  CHECK_THROWS_AS(geglu(a, Var(Tensor::zeros({3, 2}, DType::f32))), BugError);
  CHECK_THROWS_AS(geglu(a, Var(Tensor::zeros({2, 3}, DType::f64))), BugError);
  CHECK_THROWS_AS(relu(Var(Tensor::zeros({2}, DType::i32))), BugError);
}

TEST_CASE("activation speed", "[ops][activation][.bench]") {
  test::time_op(relu_case({4096, 2048}));
  test::time_op(geglu_case({4096, 2048}));
}

}  // namespace stmoe
