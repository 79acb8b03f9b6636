// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dropout.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe {
namespace {

const RandomKey kKey = RandomKey{7}.fold("dropout");

// The definition: the mask's index leaves the broadcast dimension out.
std::vector<double> reference(const std::vector<double>& x, const Shape& shape,
                              const Dropout& dropout) {
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) {
    Shape index = shape;
    auto rest = static_cast<int64_t>(i);
    for (int d = shape.rank() - 1; d >= 0; --d) {
      index[d] = rest % shape[d];
      rest /= shape[d];
    }
    index[0] += dropout.first_row;
    uint64_t element = 0;
    for (int d = 0; d < shape.rank(); ++d)
      if (d != dropout.broadcast_dim)
        element = element * static_cast<uint64_t>(shape[d]) + static_cast<uint64_t>(index[d]);
    const bool is_kept = random_uniform(dropout.key, element) >= dropout.rate;
    y.push_back(is_kept ? x[i] / (1 - dropout.rate) : 0);
  }
  return y;
}

test::OpCase dropout_case(const Shape& shape, double rate, int broadcast_dim,
                          int64_t first_row = 0) {
  const Dropout dropout{rate, kKey, broadcast_dim, first_row};
  test::OpCase op_case;
  op_case.name =
      format("dropout {} rate {} over {} from {}", shape.text(), rate, broadcast_dim, first_row);
  op_case.inputs = {{.shape = shape}};
  op_case.call = [=](const test::OpArguments& x) { return stmoe::dropout(x[0], dropout); };
  op_case.reference = [=](const test::OpValues& x) {
    return test::OpValues{reference(x[0], shape, dropout)};
  };
  return op_case;
}

}  // namespace

TEST_CASE("dropout masks by key and global element", "[ops][dropout]") {
  test::check_ops({dropout_case({3, 5, 7}, 0.1, -1), dropout_case({3, 5, 7}, 0.5, -1, 4),
                   dropout_case({1}, 0.5, -1), dropout_case({0, 3}, 0.5, -1),
                   dropout_case({5, 13001}, 0.25, -1, 3)});
}

TEST_CASE("dropout shares its mask along the broadcast dimension", "[ops][dropout]") {
  test::check_ops({dropout_case({3, 5, 7}, 0.3, 0, 9), dropout_case({3, 5, 7}, 0.3, 1, 2),
                   dropout_case({3, 5, 7}, 0.3, 2, 2), dropout_case({2, 0, 3}, 0.3, 1),
                   dropout_case({4, 130, 1030}, 0.5, 1, 1)});
}

TEST_CASE("dropout of rate 0 is the identity and records nothing", "[ops][dropout]") {
  const Var x = Var::leaf(Tensor::full({2, 3}, DType::f32, 1.5));
  const Var y = dropout(x, {});
  CHECK(y.value().raw() == x.value().raw());
  CHECK(y.node() == x.node());
}

TEST_CASE("dropout keeps the given share of elements, and the mean", "[ops][dropout]") {
  constexpr int64_t kCount = 1 << 20;
  const Var x(Tensor::full({kCount}, DType::f64, 1));
  for (double rate : {0.1, 0.5, 0.9}) {
    double kept = 0, total = 0;
    for (double y : test::values_of(dropout(x, {rate, kKey}).value())) {
      kept += y != 0;
      total += y;
    }
    INFO("rate " << rate);
    // Five standard deviations of a binomial share.
    const double deviation = std::sqrt(rate * (1 - rate) / kCount);
    test::require_close(kept / kCount, 1 - rate, {5 * deviation, 0});
    test::require_close(total / kCount, 1, {5 * deviation / (1 - rate), 0});
  }
}

TEST_CASE("rows of a batch split over ranks draw the mask of the whole batch", "[ops][dropout]") {
  const Tensor x = Tensor::full({6, 4, 8}, DType::f32, 1);
  for (int broadcast_dim : {-1, 1, 2}) {
    const Tensor whole = dropout(Var(x), {0.5, kKey, broadcast_dim, 0}).value();
    const Tensor part = dropout(Var(x.slice(0, 2, 6)), {0.5, kKey, broadcast_dim, 2}).value();
    test::require_same_bits(part, whole.slice(0, 2, 6));
  }
}

TEST_CASE("dropout refuses a rate of 1 and a dimension that is not there", "[ops][dropout]") {
  const Var x(Tensor::zeros({2, 3}, DType::f32));
  CHECK_THROWS_AS(dropout(x, {1.0, kKey}), BugError);
  CHECK_THROWS_AS(dropout(x, {-0.1, kKey}), BugError);
  CHECK_THROWS_AS(dropout(x, {0.1, kKey, 2}), BugError);
}

TEST_CASE("dropout speed", "[ops][dropout][.bench]") {
  test::time_op(dropout_case({8, 512, 2048}, 0.1, -1));
  test::time_op(dropout_case({8, 512, 2048}, 0.1, 1));
}

}  // namespace stmoe
