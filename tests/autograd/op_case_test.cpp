// SPDX-License-Identifier: Apache-2.0
// The checker is checked: each of these ops is wrong in one way and must be found out
// ([!shouldfail]).
#include "tests/support/op_case.h"

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/threads.h"
#include "tests/autograd/small_ops.h"

namespace stmoe {
namespace {

// y = 2 x by `forward`, with a gradient of `slope` dy.
test::OpCase doubling(const Shape& shape, std::function<Tensor(const Tensor&)> forward,
                      double slope = 2) {
  test::OpCase op_case;
  op_case.name = "doubling " + shape.text();
  op_case.inputs = {{.shape = shape}};
  op_case.dtypes = {DType::f64};
  op_case.call = [=](const test::OpArguments& x) {
    return record("doubling", forward(x[0].value()), {x[0]}, [=](const Tensor& dy) {
      const Tensor dx = dy.clone();
      for (double& value : dx.span<double>()) value *= slope;
      return std::vector<Tensor>{dx};
    });
  };
  op_case.reference = [](const test::OpValues& x) {
    auto y = x[0];
    for (double& value : y) value *= 2;
    return test::OpValues{y};
  };
  return op_case;
}

Tensor twice(const Tensor& x) { return test::map(x, x, test::total); }

}  // namespace

TEST_CASE("a right op passes", "[autograd][op_case]") {
  test::check_ops({doubling({2, 3}, twice), doubling({400}, twice), doubling({0}, twice)});
}

TEST_CASE("a wrong result is found", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, [](const Tensor& x) { return test::map(x, x, test::product); }));
}

TEST_CASE("a wrong gradient is found element by element", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, twice, 2.00001));
}

TEST_CASE("a wrong gradient is found along random directions", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({400}, twice, 2.00001));
}

TEST_CASE("a result that is not written everywhere is found", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, [](const Tensor& x) {
    const Tensor y = Tensor::empty_like(x);
    y.slice(0, 0, 1).copy_from(twice(x).slice(0, 0, 1));
    return y;
  }));
}

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("a write past the end is found", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, [](const Tensor& x) {
    const Tensor y = twice(x);
    double* past_the_end = y.data<double>() + y.numel();
    *past_the_end = 1;
    return y;
  }));
}
#endif

TEST_CASE("an op that ignores strides is found", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, [](const Tensor& x) {
    const Tensor y = Tensor::empty_like(x);
    for (int64_t i = 0; i < x.numel(); ++i) y.data<double>()[i] = 2 * x.data<double>()[i];
    return y;
  }));
}

TEST_CASE("an op whose bits depend on the threads is found", "[autograd][op_case][!shouldfail]") {
  test::check_op(doubling({2, 3}, [](const Tensor& x) {
    const Tensor y = twice(x);
    y.data<double>()[0] += 1e-15 * num_threads();
    return y;
  }));
}

TEST_CASE("require_close counts infinities and NaN", "[autograd][close]") {
  const auto exact = test::Tolerance::exact();
  const Tensor x = Tensor::from<double>({3}, {1, INFINITY, NAN});
  test::require_close(x, {1, INFINITY, NAN}, exact);
  test::require_close(x, {1.05, INFINITY, NAN}, {0.1, 0});
}

TEST_CASE("a NaN is not close to a number", "[autograd][close][!shouldfail]") {
  test::require_close(NAN, 1.0, {1e9, 1e9});
}

TEST_CASE("the two infinities are not close", "[autograd][close][!shouldfail]") {
  test::require_close(INFINITY, -INFINITY, {1e9, 1e9});
}

TEST_CASE("signed zeros have different bits", "[autograd][close][!shouldfail]") {
  test::require_same_bits(Tensor::from<float>({1}, {0.0f}), Tensor::from<float>({1}, {-0.0f}));
}

}  // namespace stmoe
