// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/expert_bias.h"

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

const RandomKey kKey = RandomKey{6}.fold("hidden");

struct Rows {
  std::vector<int32_t> first;  // [experts + 1]
  int64_t count;               // rows, those of nobody included
  Tensor tensor() const {
    const Tensor result = Tensor::persistent({static_cast<int64_t>(first.size())}, DType::i32);
    std::copy(first.begin(), first.end(), result.data<int32_t>());
    return result;
  }
};

// Every row's own entry, in an order that is not that of the rows; `-1` beyond the last expert's.
HiddenDropout dropout_of(const Rows& rows, double rate) {
  HiddenDropout hidden{{rate, kKey, -1, 3}, Tensor::persistent({rows.count}, DType::i32)};
  for (int64_t r = 0; r < rows.count; ++r)
    hidden.row_R.data<int32_t>()[r] =
        r < rows.first.back() ? static_cast<int32_t>(rows.count - r) : -1;
  return hidden;
}

double kept_share(const HiddenDropout& hidden, int64_t row, int64_t column, int64_t width) {
  if (!hidden.row_R.defined()) return 1;
  const int64_t entry = hidden.dropout.first_row + hidden.row_R.data<int32_t>()[row];
  const auto index = static_cast<uint64_t>(entry * width + column);
  const double rate = hidden.dropout.rate;
  return random_uniform(kKey, index) >= rate ? 1 / (1 - rate) : 0;
}

test::OpCase bias_case(const Rows& rows, int64_t width, ExpertBias bias,
                       const HiddenDropout& hidden = {}) {
  const auto num_experts = static_cast<int64_t>(rows.first.size()) - 1;
  test::OpCase op_case;
  op_case.name = format("expert_bias {} experts, {} x {}, {}, rate {}", num_experts, rows.count,
                        width, bias == ExpertBias::additive ? "+" : "*", hidden.dropout.rate);
  op_case.inputs = {{.shape = {rows.count, width}, .low = -2, .high = 2},
                    {.shape = {num_experts, width}, .low = 0.5, .high = 1.5, .is_weight = true}};
  op_case.call = [=, first = rows.tensor()](const test::OpArguments& x) {
    return expert_bias(x[0], x[1], x.on_device(first), bias,
                       {hidden.dropout, x.on_device(hidden.row_R)});
  };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> y(x[0].size(), 0.0);
    for (int64_t e = 0; e < num_experts; ++e)
      for (int64_t r = rows.first[static_cast<size_t>(e)];
           r < rows.first[static_cast<size_t>(e) + 1]; ++r)
        for (int64_t f = 0; f < width; ++f) {
          const auto at = static_cast<size_t>(r * width + f);
          const double b = x[1][static_cast<size_t>(e * width + f)];
          y[at] = (bias == ExpertBias::additive ? x[0][at] + b : x[0][at] * b) *
                  kept_share(hidden, r, f, width);
        }
    return test::OpValues{y};
  };
  return op_case;
}

const ExpertBias kKinds[] = {ExpertBias::multiplicative, ExpertBias::additive};

}  // namespace

TEST_CASE("each expert's bias multiplies or is added to its rows", "[ops][expert_bias]") {
  // The second expert has no rows; two rows are nobody's.
  const Rows rows = {{0, 3, 3, 7}, 9};
  for (ExpertBias bias : kKinds) {
    test::check_ops({bias_case(rows, 5, bias), bias_case({{0, 1}, 1}, 1, bias),
                     bias_case({{0, 0, 0}, 0}, 4, bias), bias_case({{0, 0, 0}, 3}, 4, bias),
                     bias_case(rows, 5, bias, dropout_of(rows, 0.4))});
    // More than one task a row, more than one partial sum an expert.
    const Rows many = {{0, 70, 75, 150}, 160}, uneven = {{0, 3, 400}, 420};
    for (auto op_case :
         {bias_case(many, 700, bias, dropout_of(many, 0.3)), bias_case(uneven, 16, bias),
          bias_case(uneven, 16, bias, dropout_of(uneven, 0.5))}) {
      op_case.gradient_tolerance.f32 = {1e-4, 1e-5};  // sums of 75 terms of either sign and more
      op_case.gradient_tolerance.bf16 = {2e-2, 2e-2};
      test::check_op(op_case);
    }
  }
}

TEST_CASE("a bias of ones that multiplies, or of zeros that is added, changes nothing",
          "[ops][expert_bias]") {
  const Tensor x = Tensor::from<float>({3, 2}, {1, -2, 3, 0.5, 7, 8});
  const Tensor first = Tensor::from<int32_t>({3}, {0, 2, 3});
  for (ExpertBias bias : kKinds) {
    const Var b(Tensor::full({2, 2}, DType::f32, bias == ExpertBias::additive ? 0.0 : 1.0));
    test::require_same_bits(expert_bias(Var(x), b, first, bias).value(), x);
  }
}

TEST_CASE("expert_bias worked by hand", "[ops][expert_bias]") {
  // Rows 0 and 1 are expert 0's, row 2 expert 1's.
  const Tensor first = Tensor::from<int32_t>({3}, {0, 2, 3});
  for (ExpertBias kind : kKinds) {
    const bool adds = kind == ExpertBias::additive;
    const Var x = Var::leaf(Tensor::from<double>({3, 2}, {1, 2, 3, 4, 5, 6}));
    const Var b = Var::leaf(Tensor::from<double>({2, 2}, {10, 20, 30, 40}));
    const Var y = expert_bias(x, b, first, kind);
    const std::vector<double> product = {10, 40, 30, 80, 150, 240}, sum = {11, 22, 13, 24, 35, 46};
    test::require_close(y.value(), adds ? sum : product, test::Tolerance::exact());
    backward({y}, {Tensor::from<double>({3, 2}, {1, 2, 3, 5, 7, 11})});
    // Expert 0: 1 1 + 3 3 and 2 2 + 5 4; expert 1: 7 5 and 11 6. Added: the sums of dy.
    const std::vector<double> of_product = {10, 24, 35, 66}, of_sum = {4, 7, 7, 11};
    test::require_close(b.grad(), adds ? of_sum : of_product, test::Tolerance::exact());
    const std::vector<double> through = {10, 40, 30, 100, 210, 440}, dy = {1, 2, 3, 5, 7, 11};
    test::require_close(x.grad(), adds ? dy : through, test::Tolerance::exact());
  }
}

TEST_CASE("expert_bias refuses operands that do not fit", "[ops][expert_bias]") {
  const Var x(Tensor::zeros({3, 2}, DType::bf16)), b(Tensor::zeros({2, 2}, DType::f32));
  const Tensor first = Tensor::from<int32_t>({3}, {0, 2, 3});
  const auto kind = ExpertBias::multiplicative;
  CHECK_THROWS_WITH(expert_bias(x, Var(Tensor::zeros({2, 3}, DType::f32)), first, kind),
                    Catch::Contains("the bias is f32 [2, 3], expected f32 [experts, 2]"));
  CHECK_THROWS_AS(expert_bias(x, Var(Tensor::zeros({2, 2}, DType::bf16)), first, kind), BugError);
  CHECK_THROWS_WITH(expert_bias(x, b, Tensor::zeros({2}, DType::i32), kind),
                    Catch::Contains("first rows are i32 [2] for 2 experts"));
  CHECK_THROWS_AS(expert_bias(x, b, first, ExpertBias::none), BugError);
}

TEST_CASE("expert_bias speed", "[ops][expert_bias][.bench]") {
  const Rows rows = {{0, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096}, 4096};
  for (ExpertBias bias : kKinds) test::time_op(bias_case(rows, 2048, bias));
}

}  // namespace stmoe
