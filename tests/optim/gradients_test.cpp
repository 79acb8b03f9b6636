// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include <limits>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/optim/formula.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

ParameterList with_gradients(const std::vector<Tensor>& gradients) {
  ParameterList parameters;
  for (const Tensor& gradient : gradients) {
    const Var value = Var::leaf(Tensor::zeros(gradient.shape(), DType::f32));
    value.set_grad(gradient);
    parameters.push_back({format("w{}", parameters.size()), value});
  }
  return parameters;
}

}  // namespace

TEST_CASE("the global norm is over all gradients, and a missing one counts as zero",
          "[optim][gradients]") {
  ParameterList parameters =
      with_gradients({Tensor::from<float>({2}, {1, 2}), Tensor::from<float>({1, 2}, {4, 10})});
  parameters.push_back({"none", Var::leaf(Tensor::zeros({3}, DType::f32))});
  CHECK(global_gradient_norm(parameters) == 11.0);
  CHECK(global_gradient_norm({}) == 0.0);
}

TEST_CASE("sums of squares neither overflow nor lose small terms", "[optim][gradients]") {
  CHECK(sum_of_squares(Tensor::full({100}, DType::f32, 1e25)) == Approx(1e52));
  CHECK(sum_of_squares(Tensor::full({100}, DType::bf16, 2.0)) == 400.0);
  // 1 + 2^26 terms of 2^-26 each: an f32 sum would stay at 1.
  Tensor values = Tensor::full({1 << 20}, DType::f64, 0x1p-10);
  values.span<double>()[0] = 1;
  CHECK(sum_of_squares(values.to(DType::f32)) == 2.0 - 0x1p-20);
}

TEST_CASE("sums of squares have the same bits with any number of threads", "[optim][gradients]") {
  const int before = num_threads();
  const Tensor values = formula_gradient({300007}, 0, 1);
  set_num_threads(1);
  const double one = sum_of_squares(values);
  for (int threads : {2, 3, 8}) {
    set_num_threads(threads);
    CHECK(sum_of_squares(values) == one);
  }
  set_num_threads(before);
}

TEST_CASE("the first gradient with a NaN or an infinity is named", "[optim][gradients]") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = NAN;
  const Tensor large = Tensor::full({70000}, DType::f32, 1e30);
  CHECK_FALSE(first_non_finite_gradient(with_gradients({large})).has_value());
  for (float bad : {infinity, -infinity, nan}) {
    Tensor spoiled = large.clone();
    spoiled.span<float>().back() = bad;
    const ParameterList parameters = with_gradients({large, spoiled, spoiled});
    CHECK(first_non_finite_gradient(parameters) == "w1");
    CHECK_FALSE(std::isfinite(global_gradient_norm(parameters)));
  }
}

TEST_CASE("scaling one gradient does not reach another one that shares its memory",
          "[optim][gradients]") {
  const Tensor shared = Tensor::full({4}, DType::f32, 2.0);
  const ParameterList parameters = with_gradients({shared, shared});
  scale_gradients(parameters, 0.5);
  require_close(parameters[0].value.grad(), {1, 1, 1, 1}, Tolerance::exact());
  require_close(parameters[1].value.grad(), {1, 1, 1, 1}, Tolerance::exact());
  require_close(shared, {2, 2, 2, 2}, Tolerance::exact());
  clear_gradients(parameters);
  CHECK_FALSE(parameters[0].value.grad().defined());
  scale_gradients(parameters, 0.5);
}

}  // namespace stmoe::test
