// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/activation.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

const RandomKey kKey = RandomKey{4}.fold("hidden");

// What is left of element `at` of a tensor of this shape.
double kept_share(const Shape& shape, const HiddenDropout& hidden, size_t at) {
  const Dropout& dropout = hidden.dropout;
  const auto width = static_cast<size_t>(shape[-1]);
  uint64_t index = at;
  if (hidden.row_R.defined()) {
    const int32_t row = hidden.row_R.data<int32_t>()[at / width];
    if (row < 0) return 0;
    index = static_cast<uint64_t>(dropout.first_row + row) * width + at % width;
  } else if (dropout.broadcast_dim == 1) {
    index = at / width / static_cast<size_t>(shape[1]) * width + at % width;
  }
  return random_uniform(dropout.key, index) >= dropout.rate ? 1 / (1 - dropout.rate) : 0;
}

std::string name_of_case(const char* op, const Shape& shape, const HiddenDropout& hidden) {
  return format("{} {} rate {} over {}{}", op, shape.text(), hidden.dropout.rate,
                hidden.dropout.broadcast_dim, hidden.row_R.defined() ? " by rows" : "");
}

HiddenDropout on_device(const test::OpArguments& x, const HiddenDropout& hidden) {
  return {hidden.dropout, x.on_device(hidden.row_R)};
}

test::OpCase relu_case(const Shape& shape, const HiddenDropout& hidden = {}) {
  test::OpCase op_case;
  op_case.name = name_of_case("relu", shape, hidden);
  op_case.inputs = {{.shape = shape, .low = -2, .high = 2, .away_from_zero = 1e-3}};
  op_case.call = [=](const test::OpArguments& x) { return relu(x[0], on_device(x, hidden)); };
  op_case.reference = [=](const test::OpValues& x) {
    auto y = x[0];
    for (size_t i = 0; i < y.size(); ++i) y[i] = std::max(y[i], 0.0) * kept_share(shape, hidden, i);
    return test::OpValues{y};
  };
  return op_case;
}

double gelu_of(double a) {
  return 0.5 * a * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (a + 0.044715 * a * a * a)));
}

test::OpCase gelu_case(const Shape& shape, const HiddenDropout& hidden = {}) {
  test::OpCase op_case;
  op_case.name = name_of_case("gelu", shape, hidden);
  op_case.inputs = {{.shape = shape, .low = -4, .high = 4}};
  op_case.call = [=](const test::OpArguments& x) { return gelu(x[0], on_device(x, hidden)); };
  op_case.reference = [=](const test::OpValues& x) {
    auto y = x[0];
    for (size_t i = 0; i < y.size(); ++i) y[i] = gelu_of(y[i]) * kept_share(shape, hidden, i);
    return test::OpValues{y};
  };
  op_case.flops = 11.0 * static_cast<double>(shape.numel());
  return op_case;
}

test::OpCase geglu_case(const Shape& shape, const HiddenDropout& hidden = {}) {
  test::OpCase op_case;
  op_case.name = name_of_case("geglu", shape, hidden);
  op_case.inputs = {{.shape = shape, .low = -4, .high = 4}, {.shape = shape, .low = -1, .high = 1}};
  op_case.call = [=](const test::OpArguments& x) {
    return geglu(x[0], x[1], on_device(x, hidden));
  };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> y;
    for (size_t i = 0; i < x[0].size(); ++i)
      y.push_back(gelu_of(x[0][i]) * x[1][i] * kept_share(shape, hidden, i));
    return test::OpValues{y};
  };
  op_case.flops = 12.0 * static_cast<double>(shape.numel());
  return op_case;
}

// Elementwise; shared along dimension 1; by a map of 12 rows, some of them unused.
std::vector<HiddenDropout> dropouts() {
  HiddenDropout mapped{{0.4, kKey, -1, 3}, {}};
  mapped.row_R = Tensor::persistent({12}, DType::i32);
  const std::vector<int32_t> rows = {5, 0, -1, 200, 3, -1, -1, 7, 2, 9, 1, -1};
  std::copy(rows.begin(), rows.end(), mapped.row_R.data<int32_t>());
  HiddenDropout mapped_only = mapped;
  mapped_only.dropout.rate = 0;
  return {{{0.3, kKey, -1, 0}, {}}, {{0.5, kKey, 1, 0}, {}}, mapped, mapped_only};
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

TEST_CASE("gelu in its tanh form", "[ops][activation]") {
  test::check_ops({gelu_case({5, 16}), gelu_case({1}), gelu_case({3, 0}), gelu_case({2, 20001})});
  const Var x(Tensor::from<float>({4}, {-1e4f, -60, 60, 1e4f}));
  test::require_close(gelu(x).value(), {0, 0, 60, 1e4}, test::Tolerance::exact());
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

TEST_CASE(
    "the hidden layer is dropped out by element, by length and by the row's place in the batch",
    "[ops][activation][dropout]") {
  for (const HiddenDropout& hidden : dropouts())
    for (int64_t width : {1, 20, 5000}) {
      test::check_op(relu_case({3, 4, width}, hidden));
      for (auto op_case : {gelu_case({3, 4, width}, hidden), geglu_case({3, 4, width}, hidden)}) {
        op_case.gradient_tolerance.bf16 = {2e-2, 1e-2};  // gradients up to 4 / (1 - rate)
        test::check_op(op_case);
      }
    }
  test::check_ops({relu_case({0, 4, 8}, dropouts()[1]), gelu_case({0, 4, 8}, dropouts()[1]),
                   geglu_case({3, 4, 0}, dropouts()[2])});
}

TEST_CASE("relu with dropout has the bits of relu and then dropout, gelu and geglu those in f32",
          "[ops][activation][dropout]") {
  const Shape shape = {3, 40, 96};
  for (DType dtype : {DType::f32, DType::bf16}) {
    Tensor values[3];
    for (int i = 0; i < 3; ++i) {
      const Tensor drawn = Tensor::empty(shape, DType::f32);
      for (size_t at = 0; at < drawn.span<float>().size(); ++at)
        drawn.span<float>()[at] = 4 * random_uniform(RandomKey{8}.fold(uint64_t(i)), at) - 2;
      values[i] = drawn.to(dtype);
    }
    for (int broadcast_dim : {-1, 1}) {
      const Dropout options{0.2, kKey, broadcast_dim, 5};
      auto gradients = [&](auto f) {
        const Var a = Var::leaf(values[0]), b = Var::leaf(values[1]);
        const Var y = f(a, b);
        backward({y}, {values[2]});
        return std::vector<Tensor>{y.value(), a.grad(), b.grad()};
      };
      const auto fused = gradients([&](Var a, Var) { return relu(a, {options, {}}); });
      const auto parts = gradients([&](Var a, Var) { return dropout(relu(a), options); });
      test::require_same_bits(fused[0], parts[0]);
      test::require_same_bits(fused[1], parts[1]);
      if (dtype == DType::bf16) continue;
      const auto gated = gradients([&](Var a, Var b) { return geglu(a, b, {options, {}}); });
      const auto two = gradients([&](Var a, Var b) { return dropout(geglu(a, b), options); });
      for (size_t i = 0; i < 3; ++i) test::require_same_bits(gated[i], two[i]);
      const auto one = gradients([&](Var a, Var) { return gelu(a, {options, {}}); });
      const auto apart = gradients([&](Var a, Var) { return dropout(gelu(a), options); });
      // A dropped gradient is 0 here and 0 times a slope there: the sign differs.
      for (size_t i = 0; i < 2; ++i)
        test::require_close(one[i], test::values_of(apart[i]), test::Tolerance::exact());
    }
  }
}

TEST_CASE("a row's mask does not depend on its place in the buffer", "[ops][activation][dropout]") {
  const Tensor x = Tensor::full({6, 50}, DType::f32, 1);
  const Tensor whole = relu(Var(x), {{0.5, kKey}, {}}).value();
  const HiddenDropout part{{0.5, kKey, -1, 2}, Tensor::from<int32_t>({3}, {3, -1, 0})};
  const Tensor y = relu(Var(x.slice(0, 0, 3)), part).value();
  test::require_same_bits(y.slice(0, 0, 1), whole.slice(0, 5, 6));
  test::require_close(y.slice(0, 1, 2), std::vector<double>(50), test::Tolerance::exact());
  test::require_same_bits(y.slice(0, 2, 3), whole.slice(0, 2, 3));
}

TEST_CASE("unused rows hide whatever is in them", "[ops][activation][dropout]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::from<float>({2, 2}, {nan, nan, 1, 2});
  const HiddenDropout hidden{{}, Tensor::from<int32_t>({2}, {-1, 0})};
  for (int op : {0, 1, 2}) {
    const Var leaf = Var::leaf(x);
    const Var y = op == 0   ? relu(leaf, hidden)
                  : op == 1 ? gelu(leaf, hidden)
                            : geglu(leaf, leaf, hidden);
    backward({y}, {x.clone()});
    test::require_close(y.value().slice(0, 0, 1), {0, 0}, test::Tolerance::exact());
    test::require_close(leaf.grad().slice(0, 0, 1), {0, 0}, test::Tolerance::exact());
    CHECK(leaf.grad().data<float>()[2] != 0);
  }
}

TEST_CASE("geglu refuses operands of unlike shape or type", "[ops][activation]") {
  const Var a(Tensor::zeros({2, 3}, DType::f32));
  CHECK_THROWS_AS(geglu(a, Var(Tensor::zeros({3, 2}, DType::f32))), BugError);
  CHECK_THROWS_AS(geglu(a, Var(Tensor::zeros({2, 3}, DType::f64))), BugError);
  CHECK_THROWS_AS(relu(Var(Tensor::zeros({2}, DType::i32))), BugError);
  CHECK_THROWS_AS(gelu(Var(Tensor::zeros({2}, DType::i32))), BugError);
  CHECK_THROWS_AS(relu(a, {{0.5, kKey, 1}, {}}), BugError);
  CHECK_THROWS_AS(relu(a, {{1.0, kKey}, {}}), BugError);
  const Tensor rows = Tensor::zeros({2}, DType::i32);
  CHECK_THROWS_AS(relu(a, {{0.5, kKey, 0}, rows}), BugError);
  CHECK_THROWS_WITH(relu(a, {{0.5, kKey}, Tensor::zeros({3}, DType::i32)}),
                    Catch::Contains("mask rows are i32 [3], expected i32 [2]"));
}

TEST_CASE("activation speed", "[ops][activation][.bench]") {
  test::time_op(relu_case({4096, 2048}));
  test::time_op(gelu_case({4096, 2048}));
  test::time_op(geglu_case({4096, 2048}));
  const HiddenDropout hidden{{0.1, kKey}, {}};
  test::time_op(relu_case({4096, 2048}, hidden));
  test::time_op(geglu_case({4096, 2048}, hidden));
}

}  // namespace stmoe
