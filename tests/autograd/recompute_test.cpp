// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/autograd/small_ops.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

using test::plus;
using test::square;
using test::times;

Var leaf(const std::vector<double>& values) {
  return Var::leaf(Tensor::from<double>({static_cast<int64_t>(values.size())}, values));
}

struct Model {
  Var x = leaf({0.3, -1.1, 2.7}), y = leaf({1.9, 0.1, -0.6}), weight = leaf({0.7, 1.3, -2.2});
  Var constant{Tensor::from<double>({3}, {5, 6, 7})};
  int runs = 0;

  // Two outputs of three inputs and a weight.
  std::vector<Var> block(const std::vector<Var>& in) {
    ++runs;
    const Var hidden = times(square(in[0]), weight);
    return {plus(hidden, in[1]), times(hidden, in[2])};
  }
  std::vector<Tensor> gradients(const std::vector<Var>& outputs) {
    const Var joined = times(outputs[0], square(outputs[1]));
    backward({joined}, {Tensor::from<double>({3}, {1, -2, 0.5})});
    return {joined.value(), x.grad(), y.grad(), weight.grad()};
  }
};

}  // namespace

TEST_CASE("a recomputed block gives the bits of a plain one", "[autograd][recompute]") {
  Model plain, again, nested;
  const auto expected = plain.gradients(plain.block({plain.x, plain.y, plain.constant}));
  auto block = [&](const std::vector<Var>& in) { return again.block(in); };
  const auto recomputed = again.gradients(recompute(block, {again.x, again.y, again.constant}));
  auto inner = [&](const std::vector<Var>& in) { return nested.block(in); };
  auto outer = [&](const std::vector<Var>& in) { return recompute(inner, in); };
  const auto twice = nested.gradients(recompute(outer, {nested.x, nested.y, nested.constant}));
  CHECK(plain.runs == 1);
  CHECK(again.runs == 2);
  CHECK(nested.runs == 3);
  for (size_t i = 0; i < expected.size(); ++i) {
    test::require_same_bits(recomputed[i], expected[i]);
    test::require_same_bits(twice[i], expected[i]);
  }
  CHECK(!again.constant.grad().defined());
}

TEST_CASE("a block whose inputs need no gradient still trains its weights",
          "[autograd][recompute]") {
  Model model;
  const auto outputs = recompute([&](const std::vector<Var>& in) { return model.block(in); },
                                 {model.x.detach(), model.y.detach(), model.constant});
  backward({outputs[0]}, {Tensor::full({3}, DType::f64, 1)});
  test::require_close(model.weight.grad(), {0.09, 1.21, 7.29}, test::Tolerance::of(DType::f64));
}

TEST_CASE("recompute keeps the inputs only, and runs once without recording",
          "[autograd][recompute]") {
  Model model;
  std::weak_ptr<int> inside;
  auto block = [&](const std::vector<Var>& in) -> std::vector<Var> {
    ++model.runs;
    auto token = std::make_shared<int>(0);
    inside = token;
    return {record("holder", in[0].value(), {in[0]},
                   [token](const Tensor& dy) { return std::vector<Tensor>{dy}; })};
  };
  const auto outputs = recompute(block, {model.x});
  CHECK(inside.expired());
  CHECK(outputs[0].requires_grad());
  NoGradScope no_grad;
  CHECK(!recompute(block, {model.x})[0].requires_grad());
  CHECK(model.runs == 2);
}

TEST_CASE("an exception inside a recomputed block leaves recording as it was",
          "[autograd][recompute]") {
  const Var x = leaf({1});
  int runs = 0;
  auto block = [&](const std::vector<Var>& in) -> std::vector<Var> {
    if (++runs == 2) throw InputError("in the second run");
    return {square(in[0])};
  };
  const auto y = recompute(block, {x});
  CHECK_THROWS_AS(backward(y[0]), InputError);
  CHECK(grad_enabled());
  auto broken = [](const std::vector<Var>&) -> std::vector<Var> { throw InputError("first"); };
  CHECK_THROWS_AS(recompute(broken, {x}), InputError);
  CHECK(grad_enabled());
}

}  // namespace stmoe
