// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/add.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe {
namespace {

test::OpCase binary_case(const std::string& name, const Shape& shape,
                         Var (*op)(const Var&, const Var&), double (*formula)(double, double)) {
  test::OpCase op_case;
  op_case.name = name + " " + shape.text();
  op_case.inputs = {{.shape = shape}, {.shape = shape}};
  op_case.call = [op](const test::OpArguments& x) { return op(x[0], x[1]); };
  op_case.reference = [formula](const test::OpValues& x) {
    std::vector<double> y;
    for (size_t i = 0; i < x[0].size(); ++i) y.push_back(formula(x[0][i], x[1][i]));
    return test::OpValues{y};
  };
  return op_case;
}

test::OpCase add_case(const Shape& shape) {
  return binary_case("add", shape, add, [](double a, double b) { return a + b; });
}

test::OpCase multiply_case(const Shape& shape) {
  return binary_case("multiply", shape, multiply, [](double a, double b) { return a * b; });
}

test::OpCase scale_case(const Shape& shape) {
  test::OpCase op_case;
  op_case.name = "scale " + shape.text();
  op_case.inputs = {{.shape = shape}};
  op_case.call = [](const test::OpArguments& x) { return scale(x[0], -2.5); };
  op_case.reference = [](const test::OpValues& x) {
    auto y = x[0];
    for (double& value : y) value *= -2.5;
    return test::OpValues{y};
  };
  return op_case;
}

test::OpCase sum_case(const Shape& shape) {
  test::OpCase op_case;
  op_case.name = "sum " + shape.text();
  op_case.inputs = {{.shape = shape, .low = 0}};
  op_case.call = [](const test::OpArguments& x) { return sum(x[0]); };
  op_case.reference = [](const test::OpValues& x) {
    double total = 0;
    for (double value : x[0]) total += value;
    return test::OpValues{{total}};
  };
  // The sum is accumulated in f64 and rounded once, whatever the type of the terms.
  op_case.tolerance.f32 = op_case.tolerance.bf16 = {1e-7, 1e-7};
  return op_case;
}

test::OpCase weighted_sum_case() {
  test::OpCase op_case;
  op_case.name = "weighted_sum";
  op_case.inputs = {{.shape = {1}}, {.shape = {1, 1}}, {.shape = {}}};
  op_case.call = [](const test::OpArguments& x) {
    return weighted_sum({x[0], x[1], x[2]}, {1, 0.25, -3});
  };
  op_case.reference = [](const test::OpValues& x) {
    return test::OpValues{{x[0][0] + 0.25 * x[1][0] - 3 * x[2][0]}};
  };
  return op_case;
}

// More terms than a kernel is given at once.
test::OpCase many_terms_case() {
  test::OpCase op_case;
  op_case.name = "weighted_sum of nine";
  op_case.inputs = std::vector<test::OpInput>(9, {.shape = {1}});
  std::vector<double> coefficients;
  for (int i = 0; i < 9; ++i) coefficients.push_back(0.5 * i - 1);
  op_case.call = [=](const test::OpArguments& x) { return weighted_sum(x.inputs, coefficients); };
  op_case.reference = [=](const test::OpValues& x) {
    double total = 0;
    for (size_t i = 0; i < 9; ++i) total += coefficients[i] * x[i][0];
    return test::OpValues{{total}};
  };
  return op_case;
}

test::OpCase cast_case(DType to) {
  test::OpCase op_case;
  op_case.name = format("cast to {}", name_of(to));
  op_case.inputs = {{.shape = {7, 9}}};
  op_case.call = [to](const test::OpArguments& x) { return cast(x[0], to); };
  op_case.reference = [](const test::OpValues& x) { return x; };
  // Central differences of a value that is rounded to a narrower type mean nothing.
  if (to != DType::f64) op_case.dtypes = {DType::f32, DType::bf16};
  if (to == DType::bf16) op_case.tolerance.f32 = op_case.gradient_tolerance.f32 = {0, 0x1p-8};
  return op_case;
}

}  // namespace

TEST_CASE("add and multiply work element by element", "[ops][add]") {
  test::check_ops({add_case({3, 5}), add_case({1}), add_case({2, 0}), add_case({3, 3, 9000})});
  test::check_ops({multiply_case({3, 5}), multiply_case({1}), multiply_case({0, 2}),
                   multiply_case({3, 3, 9000})});
}

TEST_CASE("scale multiplies by a constant", "[ops][add]") {
  test::check_ops({scale_case({3, 5}), scale_case({1}), scale_case({0}), scale_case({40000})});
}

TEST_CASE("sum adds every element in f64", "[ops][add]") {
  test::check_ops({sum_case({3, 5}), sum_case({1}), sum_case({0, 3}), sum_case({5, 20000})});
}

TEST_CASE("weighted_sum joins the parts of a loss", "[ops][add]") {
  test::check_op(weighted_sum_case());
  test::check_op(many_terms_case());
  CHECK_THROWS_AS(weighted_sum({}, {}), BugError);
  CHECK_THROWS_AS(weighted_sum({Var(Tensor::zeros({2}, DType::f32))}, {1}), BugError);
}

TEST_CASE("weighted_sum is f64 when a term is", "[ops][add]") {
  const Var a(Tensor::full({1}, DType::f32, 1)), b(Tensor::full({1}, DType::f64, 1e-12));
  CHECK(weighted_sum({a, a}, {1, 1}).dtype() == DType::f32);
  test::require_close(weighted_sum({a, b}, {1, 1}).value(), {1 + 1e-12}, {1e-16, 0});
}

TEST_CASE("cast rounds forward and backward", "[ops][add]") {
  test::check_ops({cast_case(DType::f32), cast_case(DType::bf16), cast_case(DType::f64)});
}

TEST_CASE("operands of unlike shape or type are refused with both named", "[ops][add]") {
  const Var a(Tensor::zeros({2, 3}, DType::f32)), b(Tensor::zeros({2, 4}, DType::f32));
  CHECK_THROWS_WITH(add(a, b), Catch::Contains("add: operands are f32 [2, 3] and f32 [2, 4]"));
  CHECK_THROWS_AS(multiply(a, cast(a, DType::bf16)), BugError);
}

TEST_CASE("add speed", "[ops][add][.bench]") {
  const Shape shape{8, 512, 2048};
  for (const auto& op_case :
       {add_case(shape), multiply_case(shape), scale_case(shape), sum_case(shape)})
    test::time_op(op_case);
}

}  // namespace stmoe
