// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/linear.h"

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/ops/product_peak.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

// y[n, o] = sum_i x[n, i] w[i, o], or w[o, i].
std::vector<double> reference(const test::OpValues& x, int64_t rows, int64_t in, int64_t out,
                              bool is_transposed) {
  std::vector<double> y(static_cast<size_t>(rows * out), 0.0);
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i)
        y[static_cast<size_t>(n * out + o)] +=
            x[0][static_cast<size_t>(n * in + i)] *
            x[1][static_cast<size_t>(is_transposed ? o * in + i : i * out + o)];
  return y;
}

// Sums of `terms` products of either sign, each up to one.
void set_tolerances(test::OpCase& op_case, int64_t terms) {
  const double size = std::max(1.0, std::sqrt(static_cast<double>(terms)));
  op_case.tolerance.f32 = op_case.gradient_tolerance.f32 = {2e-6 * size, 1e-5};
  op_case.tolerance.bf16 = {1e-2 * size, 1e-2};  // of rounded weights
  op_case.gradient_tolerance.bf16 = {1e-2 * size, 1e-2};
}

test::OpCase linear_case(Shape x, int64_t out, bool is_transposed = false,
                         std::optional<DType> result = std::nullopt) {
  const int64_t in = x[-1];
  int64_t rows = 1;
  for (int d = 0; d + 1 < x.rank(); ++d) rows *= x[d];
  test::OpCase op_case;
  op_case.name = format("linear {} to {}{}{}", x.text(), out, is_transposed ? " transposed" : "",
                        result ? " f32" : "");
  op_case.inputs = {{.shape = x},
                    {.shape = is_transposed ? Shape{out, in} : Shape{in, out}, .is_weight = true}};
  op_case.call = [=](const test::OpArguments& a) {
    const auto dtype = a.dtype == DType::bf16 ? result : std::nullopt;
    return is_transposed ? linear_transposed(a[0], a[1], dtype) : linear(a[0], a[1], dtype);
  };
  op_case.reference = [=](const test::OpValues& v) {
    return test::OpValues{reference(v, rows, in, out, is_transposed)};
  };
  set_tolerances(op_case, std::max({in, out, rows}));
  op_case.flops = 2.0 * static_cast<double>(x.numel() * out);
  return op_case;
}

// `borders` as expert_linear takes them; `unfilled` rows behind the last expert's.
test::OpCase expert_case(const std::vector<int32_t>& borders, int64_t unfilled, int64_t in,
                         int64_t out) {
  const int64_t experts = std::ssize(borders) - 1, rows = borders.back() + unfilled;
  const Tensor first_row = Tensor::from<int32_t>({experts + 1}, borders);
  test::OpCase op_case;
  op_case.name = format("expert_linear {} experts, {} rows x {} to {}", experts, rows, in, out);
  op_case.inputs = {{.shape = {rows, in}}, {.shape = {experts, in, out}, .is_weight = true}};
  op_case.call = [=](const test::OpArguments& a) { return expert_linear(a[0], a[1], {first_row}); };
  op_case.reference = [=](const test::OpValues& v) {
    std::vector<double> y(static_cast<size_t>(rows * out));
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t r = borders[static_cast<size_t>(e)]; r < borders[static_cast<size_t>(e) + 1];
           ++r)
        for (int64_t i = 0; i < in; ++i)
          for (int64_t o = 0; o < out; ++o)
            y[static_cast<size_t>(r * out + o)] +=
                v[0][static_cast<size_t>(r * in + i)] *
                v[1][static_cast<size_t>((e * in + i) * out + o)];
    return test::OpValues{y};
  };
  set_tolerances(op_case, std::max({in, out, rows}));
  op_case.flops = 2.0 * static_cast<double>(borders.back() * in * out);
  return op_case;
}

test::OpCase even_expert_case(int64_t experts, int64_t rows, int64_t in, int64_t out) {
  std::vector<int32_t> borders;
  for (int64_t e = 0; e <= experts; ++e) borders.push_back(static_cast<int32_t>(e * rows));
  return expert_case(borders, 0, in, out);
}

// Every expert with the same number of rows, of which nothing is read on the host.
test::OpCase padded_expert_case(int64_t experts, int64_t rows, int64_t in, int64_t out) {
  test::OpCase op_case = even_expert_case(experts, rows, in, out);
  op_case.name += ", padded";
  op_case.call = [=](const test::OpArguments& a) {
    return expert_linear(a[0], a[1], {Tensor(), rows});
  };
  return op_case;
}

}  // namespace

TEST_CASE("linear multiplies the last dimension by the kernel", "[ops][linear]") {
  test::check_ops({linear_case({5, 7}, 3), linear_case({2, 3, 4}, 5), linear_case({6}, 4),
                   linear_case({1, 1}, 1), linear_case({17, 65}, 3), linear_case({3, 1}, 17),
                   linear_case({33, 40}, 130)});
}

TEST_CASE("linear of nothing is nothing, and over no inputs zero", "[ops][linear]") {
  test::check_ops({linear_case({0, 4}, 3), linear_case({2, 0, 4}, 3), linear_case({4, 3}, 0),
                   linear_case({4, 0}, 3), linear_case({0, 4}, 3, true),
                   linear_case({4, 3}, 0, true)});
}

TEST_CASE("linear_transposed multiplies by the rows of the table", "[ops][linear]") {
  test::check_ops({linear_case({5, 7}, 3, true), linear_case({2, 3, 4}, 65, true),
                   linear_case({1, 17}, 1, true)});
}

TEST_CASE("linear gives f32 results of bf16 inputs on request", "[ops][linear]") {
  for (bool is_transposed : {false, true}) {
    auto op_case = linear_case({6, 24}, 35, is_transposed, DType::f32);
    op_case.dtypes = {DType::bf16};
    test::check_op(op_case);
    const Var x(Tensor::full({2, 3}, DType::bf16, 1.0 / 3));
    const Var w(Tensor::full({3, 3}, DType::f32, 1.0 / 3));
    const Var y = is_transposed ? linear_transposed(x, w, DType::f32) : linear(x, w, DType::f32);
    const double third =
        Tensor::full({1}, DType::bf16, 1.0 / 3).item();  // x and w are both rounded
    test::require_close(y.value(), Tensor::full({2, 3}, DType::f64, 3 * third * third), {0, 1e-6});
  }
}

TEST_CASE("expert_linear multiplies each expert's rows by its own kernel", "[ops][linear]") {
  test::check_ops({expert_case({0, 4, 9, 10}, 0, 5, 6), expert_case({0, 1}, 0, 1, 1),
                   expert_case({0, 17, 17, 40, 41, 41}, 3, 3, 65), expert_case({0, 0, 0}, 0, 3, 4),
                   expert_case({0, 0, 0}, 2, 3, 4), expert_case({0, 300, 310, 700}, 1, 70, 130)});
}

TEST_CASE("expert_linear multiplies padded rows as one batch", "[ops][linear]") {
  test::check_ops({padded_expert_case(3, 4, 5, 6), padded_expert_case(1, 1, 1, 1),
                   padded_expert_case(4, 64, 17, 65)});
  const Var x(Tensor::zeros({7, 3}, DType::f32)), w(Tensor::zeros({2, 3, 5}, DType::f32));
  REQUIRE_THROWS_WITH(expert_linear(x, w, {Tensor(), 4}),
                      Catch::Contains("2 experts of 4 rows each in 7 rows"));
}

TEST_CASE("linear computes only the gradients that are needed", "[ops][linear]") {
  const Tensor x = Tensor::full({2, 3}, DType::f32, 1), w = Tensor::full({3, 4}, DType::f32, 1);
  const Tensor dy = Tensor::full({2, 4}, DType::f32, 1);
  const Var frozen(w), trained = Var::leaf(w), input = Var::leaf(x);
  backward({linear(input, frozen)}, {dy});
  test::require_close(input.grad(), Tensor::full({2, 3}, DType::f32, 4), test::Tolerance::exact());
  backward({linear(Var(x), trained)}, {dy});
  test::require_close(trained.grad(), Tensor::full({3, 4}, DType::f32, 2),
                      test::Tolerance::exact());
}

TEST_CASE("gradients of a weight that several products use add up", "[ops][linear]") {
  const Tensor x = Tensor::full({2, 3}, DType::f32, 2);
  const Tensor dy = Tensor::full({2, 4}, DType::f32, 1);
  const Var w = Var::leaf(Tensor::full({3, 4}, DType::f32, 1));
  for (int round = 1; round <= 3; ++round) {
    backward({linear(Var(x), w)}, {dy});
    test::require_close(w.grad(), Tensor::full({3, 4}, DType::f32, 4.0 * round),
                        test::Tolerance::exact());
  }
  const Var experts = Var::leaf(Tensor::full({2, 3, 4}, DType::f32, 1));
  for (int round = 0; round < 2; ++round)
    backward({expert_linear(Var(x), experts, {Tensor::from<int32_t>({3}, {0, 2, 2})})}, {dy});
  test::require_close(experts.grad().slice(0, 0, 1), Tensor::full({1, 3, 4}, DType::f32, 8),
                      test::Tolerance::exact());
  test::require_close(experts.grad().slice(0, 1, 2), Tensor::zeros({1, 3, 4}, DType::f32),
                      test::Tolerance::exact());
}

TEST_CASE("linear names what does not fit", "[ops][linear]") {
  const Var x(Tensor::zeros({2, 3}, DType::f32)), w(Tensor::zeros({4, 5}, DType::f32));
  REQUIRE_THROWS_WITH(linear(x, w), Catch::Contains("x [2, 3] and w [4, 5] do not fit"));
  REQUIRE_THROWS_WITH(linear(x, Var(Tensor::zeros({3, 5}, DType::bf16))),
                      Catch::Contains("x is f32, w is bf16"));
  const Var kernels(Tensor::zeros({2, 3, 5}, DType::f32));
  REQUIRE_THROWS_AS(expert_linear(x, w, {Tensor::from<int32_t>({2}, {0, 2})}), BugError);
  REQUIRE_THROWS_WITH(expert_linear(x, kernels, {Tensor::from<int32_t>({3}, {0, 1, 3})}),
                      Catch::Contains("2 experts over 2 rows have 3 borders, the last is 3"));
  REQUIRE_THROWS_AS(expert_linear(x, kernels, {Tensor::from<int32_t>({3}, {0, 2, 1})}), BugError);
}

TEST_CASE("linear products of a training step", "[.bench]") {
  for (DType dtype : {DType::f32, DType::bf16})
    WARN("product peak " << name_of(dtype) << ": " << measure_product_peak(dtype) * 1e-9
                         << " GFLOP/s");
  for (int64_t tokens : {4096, 912})
    for (auto [in, out] : {std::pair{512, 512}, {512, 2048}, {2048, 512}})
      test::time_op(linear_case({tokens, in}, out));
  test::time_op(linear_case({912, 512}, 32128, true, DType::f32));
  for (int64_t rows : {640, 142, 64}) {
    test::time_op(even_expert_case(8, rows, 512, 2048));
    test::time_op(even_expert_case(8, rows, 2048, 512));
  }
}

}  // namespace stmoe
