// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/softmax_with_lse.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpValues reference(const std::vector<double>& logits, int64_t experts) {
  OpValues result(2);
  for (size_t row = 0; row < logits.size(); row += static_cast<size_t>(experts)) {
    double total = 0;
    for (int64_t e = 0; e < experts; ++e) total += std::exp(logits[row + static_cast<size_t>(e)]);
    for (int64_t e = 0; e < experts; ++e)
      result[0].push_back(std::exp(logits[row + static_cast<size_t>(e)]) / total);
    result[1].push_back(std::log(total));
  }
  return result;
}

OpCase make_case(int64_t tokens, int64_t experts, double range) {
  OpCase result;
  result.name = format("softmax_with_lse {}x{} in {}", tokens, experts, range);
  result.inputs = {{{tokens, experts}, -range, range}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [](const OpArguments& x) {
    auto [p_NE, lse_N] = softmax_with_lse(x[0]);
    return std::vector<Var>{p_NE, lse_N};
  };
  result.reference = [=](const OpValues& x) { return reference(x[0], experts); };
  return result;
}

TEST_CASE("softmax_with_lse gives probabilities and the log of their sum", "[ops][router]") {
  check_ops({make_case(1, 1, 1), make_case(0, 3, 1), make_case(5, 3, 2), make_case(7, 64, 4),
             make_case(300, 8, 10), make_case(40, 129, 1), make_case(17, 300, 2),
             make_case(2200, 64, 4)});
}

TEST_CASE("softmax_with_lse stays finite for large logits", "[ops][router]") {
  const auto [p_NE, lse_N] =
      softmax_with_lse(Var(Tensor::from<float>({2, 3}, {1e4f, 0, -1e4f, -3e38f, -3e38f, -3e38f})));
  require_close(p_NE.value(), {1, 0, 0, 1.0 / 3, 1.0 / 3, 1.0 / 3}, {1e-6, 0});
  require_close(lse_N.value(), {1e4, -3e38}, {0, 1e-6});
}

TEST_CASE("softmax_with_lse passes on the gradient of either result alone", "[ops][router]") {
  const Tensor logits = Tensor::from<double>({1, 2}, {0.0, std::log(3.0)});
  const Var only_lse = Var::leaf(logits), only_p = Var::leaf(logits);
  backward({softmax_with_lse(only_lse).lse_N}, {Tensor::from<double>({1}, {2.0})});
  require_close(only_lse.grad(), {0.5, 1.5}, {1e-12, 0});
  backward({softmax_with_lse(only_p).p_NE}, {Tensor::from<double>({1, 2}, {1.0, 0.0})});
  require_close(only_p.grad(), {0.1875, -0.1875}, {1e-12, 0});
}

TEST_CASE("time of softmax_with_lse", "[.bench]") {
  time_op(make_case(4096, 8, 4));
  time_op(make_case(4096, 64, 4));
}

}  // namespace
}  // namespace stmoe::test
