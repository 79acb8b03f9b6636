// SPDX-License-Identifier: Apache-2.0
#include "lib/autograd/tape.h"

#include <catch2/catch.hpp>

#include "lib/base/profile.h"
#include "tests/autograd/small_ops.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

using test::number;
using test::plus;
using test::square;
using test::times;

double grad(const Var& x) { return x.grad().item(); }

}  // namespace

TEST_CASE("the gradient passes through values that no variable holds", "[autograd]") {
  const Var x = number(1.5);
  backward(square(square(square(x))));
  CHECK(grad(x) == Approx(8 * std::pow(1.5, 7)));
}

TEST_CASE("a value used twice gets the sum of its gradients", "[autograd]") {
  const Var x = number(3), y = number(4);
  SECTION("by one op") {
    backward(times(x, x));
    CHECK(grad(x) == 6);
  }
  SECTION("through a diamond") {
    const Var a = square(x);                   // x^2
    backward(times(plus(a, y), times(a, x)));  // (x^2 + y) x^3 = x^5 + y x^3
    CHECK(grad(x) == 5 * 81 + 3 * 4 * 9);
    CHECK(grad(y) == 27);
  }
  SECTION("when the ops return the very gradient they were given") {
    const Var sum = plus(plus(x, x), plus(x, y));
    backward(plus(sum, sum));
    CHECK(grad(x) == 6);
    CHECK(grad(y) == 2);
  }
}

TEST_CASE("gradients add up over backward passes until they are cleared", "[autograd]") {
  const Var x = number(2);
  backward(square(x));
  backward(square(x));
  CHECK(grad(x) == 8);
  x.clear_grad();
  CHECK(!x.grad().defined());
  backward(square(x));
  CHECK(grad(x) == 4);
}

TEST_CASE("a closure adds to the gradient of a leaf in place", "[autograd]") {
  const Var w = number(3), x = number(2);
  std::vector<bool> accumulated;
  auto scaled = [&](const Var& a) {  // a w
    return record("scaled", Tensor::full({1}, DType::f64, a.value().item() * w.value().item()),
                  {a, w},
                  [&, a = a.value(), w_value = w.value(),
                   gradient = LeafGradient(w)](const Tensor& dy) -> std::vector<Tensor> {
                    gradient.add([&](const Tensor& sum, bool accumulate) {
                      accumulated.push_back(accumulate);
                      sum.fill(dy.item() * a.item() + (accumulate ? sum.item() : 0));
                    });
                    return {Tensor::full({1}, DType::f64, dy.item() * w_value.item()), Tensor()};
                  });
  };
  backward(scaled(scaled(x)));  // w^2 x
  CHECK(grad(w) == 2 * 3 * 2);
  CHECK(grad(x) == 9);
  CHECK(accumulated == std::vector<bool>{false, true});
  const Tensor kept = w.grad();  // somebody else's view stays as it is
  backward(scaled(number(1)));
  CHECK(grad(w) == 13);
  CHECK(kept.item() == 12);
  CHECK(!LeafGradient(square(x)).is_leaf());
  CHECK(!LeafGradient(x.detach()).is_leaf());
}

TEST_CASE("a leaf that is told to keeps its rounded copy until its value changes", "[autograd]") {
  const Var w = Var::leaf(Tensor::full({3}, DType::f32, 1.0 / 3));
  w.value_as(DType::bf16);
  CHECK(!w.rounded().defined());
  w.keep_rounded();
  CHECK(w.value_as(DType::f32).raw() == w.value().raw());
  const Tensor copy = w.value_as(DType::bf16);
  test::require_same_bits(copy, w.value().to(DType::bf16));
  CHECK(w.value_as(DType::bf16).raw() == copy.raw());
  w.value().fill(2);
  w.value_changed();
  CHECK(w.value_as(DType::bf16).slice(0, 0, 1).item() == 2);
  const Var constant(w.value());
  CHECK(constant.value_as(DType::bf16).slice(0, 0, 1).item() == 2);
  CHECK(!constant.rounded().defined());
}

TEST_CASE("every leaf owns its gradient", "[autograd]") {
  const Var x = number(1), y = number(1);
  const Tensor given = Tensor::full({1}, DType::f64, 5);
  backward({plus(x, y)}, {given});
  x.grad().fill(0);
  CHECK(grad(y) == 5);
  CHECK(given.item() == 5);
}

TEST_CASE("nothing is recorded without leaves or inside a no-grad scope", "[autograd]") {
  const Var x = number(2), constant = x.detach();
  CHECK(square(x).requires_grad());
  CHECK(!square(constant).requires_grad());
  {
    NoGradScope outer;
    CHECK(!square(x).requires_grad());
    { NoGradScope inner; }
    CHECK(!grad_enabled());
    CHECK(!will_record({x}));
  }
  CHECK(grad_enabled());
  backward(square(constant));  // a constant: nothing to do
  CHECK(!x.grad().defined());
}

TEST_CASE("a mixed op passes no gradient to its constants", "[autograd]") {
  const Var x = number(2), c(Tensor::full({1}, DType::f64, 7));
  backward(times(x, c));
  CHECK(grad(x) == 7);
  CHECK(!c.grad().defined());
}

TEST_CASE("backward through a used tape is refused", "[autograd]") {
  const Var loss = square(number(2));
  backward(loss);
  CHECK_THROWS_WITH(backward(loss), Catch::Contains("square: backward was already run"));
}

TEST_CASE("backward needs a loss of one element", "[autograd]") {
  const Var x = Var::leaf(Tensor::zeros({2}, DType::f64));
  CHECK_THROWS_WITH(backward(x), Catch::Contains("the loss has shape [2]"));
  backward({x}, {Tensor::full({2}, DType::f64, 3)});
  test::require_close(x.grad(), {3, 3}, test::Tolerance::exact());
}

TEST_CASE("an op of several outputs sees which of them are used", "[autograd]") {
  const Var x = number(5);
  std::vector<bool> defined;
  auto split = [&] {
    return record_many("split",
                       {Tensor::full({1}, DType::f64, 1), Tensor::full({1}, DType::f64, 2),
                        Tensor::full({1}, DType::i32, 3)},
                       {x}, [&](std::span<const Tensor> dys) -> std::vector<Tensor> {
                         for (const Tensor& dy : dys) defined.push_back(dy.defined());
                         return {dys[1]};
                       });
  };
  const auto parts = split();
  CHECK(!parts[2].requires_grad());
  backward(square(parts[1]));
  CHECK(defined == std::vector<bool>{false, true, false});
  CHECK(grad(x) == 4);
  NoGradScope no_grad;
  CHECK(split().size() == 3);
}

TEST_CASE("closures get contiguous gradients", "[autograd]") {
  const Var x = Var::leaf(Tensor::from<double>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const Tensor dy = Tensor::from<double>({3, 2}, {1, 2, 3, 4, 5, 6});
  const Var checked = record("checked", x.value(), {x}, [](const Tensor& given) {
    CHECK(given.is_contiguous());
    return std::vector<Tensor>{given};
  });
  backward({test::turned(checked), test::turned(checked)}, {dy, dy});
  test::require_close(x.grad(), {2, 6, 10, 4, 8, 12}, test::Tolerance::exact());
}

TEST_CASE("a closure that returns the wrong gradients is named", "[autograd]") {
  const Var x = number(1);
  auto loss = [&](std::vector<Tensor> gradients) {
    return record("broken", x.value(), {x}, [=](const Tensor&) { return gradients; });
  };
  CHECK_THROWS_WITH(backward(loss({})), Catch::Contains("broken: 0 gradients for 1 inputs"));
  CHECK_THROWS_WITH(backward(loss({Tensor::zeros({2}, DType::f64)})),
                    Catch::Contains("broken: gradient 0 of shape [2], input [1]"));
}

TEST_CASE("what a closure holds is released as soon as it has run", "[autograd]") {
  const Var x = number(1);
  std::weak_ptr<int> held;
  bool was_released = false;
  const Var first = record("first", x.value(), {x}, [&](const Tensor& dy) {
    was_released = held.expired();
    return std::vector<Tensor>{dy};
  });
  Var second;
  {
    auto token = std::make_shared<int>(1);
    held = token;
    second = record("second", x.value(), {first},
                    [token](const Tensor& dy) { return std::vector<Tensor>{dy}; });
  }
  CHECK(!held.expired());
  backward(second);
  CHECK(was_released);
}

TEST_CASE("a tape of many ops needs no deep stack", "[autograd]") {
  const Var x = number(1);
  Var y = x;
  for (int i = 0; i < 50000; ++i) y = plus(y, x);
  backward(y);
  CHECK(grad(x) == 50001);
}

TEST_CASE("a tape of thousands of ops can be dropped", "[autograd]") {
  Var y = number(1);
  for (int i = 0; i < 2000; ++i) y = square(y);
  y = Var();
  SUCCEED();
}

TEST_CASE("backward closures appear in the profile under their op", "[autograd][profile]") {
  start_profile();
  backward(times(square(number(2)), number(3)));
  std::vector<std::string> ops;
  for (const OpTime& row : stop_profile().ops) {
    ops.push_back(row.op);
    CHECK(row.backward.calls == 1);
    CHECK(row.forward.calls == 0);
    CHECK(row.backward.seconds > 0);
  }
  CHECK_THAT(ops, Catch::UnorderedEquals(std::vector<std::string>{"square", "times"}));
}

}  // namespace stmoe
