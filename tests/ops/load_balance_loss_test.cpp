// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/load_balance_loss.h"

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

// One group at a time, as the formula is written.
double reference(const std::vector<double>& p, const std::vector<int32_t>& expert,
                 const std::vector<int32_t>& mask, size_t groups, size_t experts) {
  const size_t tokens = mask.size() / groups, k = expert.size() / mask.size();
  double sum = 0;
  for (size_t g = 0; g < groups; ++g)
    for (size_t e = 0; e < experts; ++e) {
      double f = 0, mean = 0;
      for (size_t n = g * tokens; n < (g + 1) * tokens; ++n) {
        if (mask[n] == 0) continue;
        mean += p[n * experts + e] / static_cast<double>(tokens);
        for (size_t i = n * k; i < (n + 1) * k; ++i)
          f += expert[i] == static_cast<int32_t>(e) ? 1.0 / static_cast<double>(tokens) : 0.0;
      }
      sum += f * mean;
    }
  return sum * static_cast<double>(experts) / static_cast<double>(groups);
}

OpCase make_case(int64_t groups, int64_t tokens, int64_t experts, int64_t k, bool is_masked) {
  const Tensor expert_NK = draw_choices(groups * tokens, k, experts, 7);
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  if (is_masked)
    for (size_t n = 0; n < mask.size(); n += 3) mask[n] = 0;
  const Tensor mask_N =
      is_masked ? Tensor::from<int32_t>({groups * tokens}, mask).clone() : Tensor();
  OpCase result;
  result.name = format("load_balance_loss {}x{}x{}, {} choices{}", groups, tokens, experts, k,
                       is_masked ? ", masked" : "");
  result.inputs = {{{groups * tokens, experts}, 0, 1}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return load_balance_loss(x[0], x.on_device(expert_NK), groups, x.on_device(mask_N));
  };
  result.reference = [=](const OpValues& x) {
    return OpValues{{reference(x[0], ints(expert_NK), mask, static_cast<size_t>(groups),
                               static_cast<size_t>(experts))}};
  };
  return result;
}

TEST_CASE("load_balance_loss is the mean over groups of shares times mean probabilities",
          "[ops][router]") {
  check_ops({make_case(1, 1, 1, 1, false), make_case(1, 6, 3, 1, false),
             make_case(3, 5, 4, 2, false), make_case(2, 200, 8, 1, true),
             make_case(1, 1500, 64, 2, true), make_case(2, 70, 300, 2, true)});
}

TEST_CASE("load_balance_loss is k when choices and probabilities are uniform", "[ops][router]") {
  const Var p(Tensor::full({8, 4}, DType::f64, 0.25));
  const Tensor first = Tensor::from<int32_t>({8, 1}, {0, 1, 2, 3, 0, 1, 2, 3});
  const Tensor both =
      Tensor::from<int32_t>({8, 2}, {0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 0});
  require_close(load_balance_loss(p, first, 1).value(), {1.0}, {1e-12, 0});
  require_close(load_balance_loss(p, first, 2).value(), {1.0}, {1e-12, 0});
  require_close(load_balance_loss(p, both, 1).value(), {2.0}, {1e-12, 0});
}

TEST_CASE("load_balance_loss needs groups of equal size", "[ops][router]") {
  const Var p(Tensor::full({6, 2}, DType::f32, 0.5));
  REQUIRE_THROWS_WITH(load_balance_loss(p, Tensor::zeros({6, 1}, DType::i32), 4),
                      Catch::Contains("4 groups of 6 tokens"));
}

}  // namespace
}  // namespace stmoe::test
