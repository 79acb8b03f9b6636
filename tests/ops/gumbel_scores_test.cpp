// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/gumbel_scores.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "lib/ops/top_k.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

constexpr int64_t kTokens = 40000;

// kTokens rows of logits ln 1, ln 2, ln 5.
Tensor logits(DType dtype) {
  std::vector<double> values;
  for (int64_t n = 0; n < kTokens; ++n)
    values.insert(values.end(), {0.0, std::log(2.0), std::log(5.0)});
  return Tensor::from<double>({kTokens, 3}, values).to(dtype);
}

std::vector<double> frequencies(const Tensor& index_NK, int64_t choice) {
  std::vector<double> count(3);
  const auto index = ints(index_NK);
  const auto k = static_cast<size_t>(index_NK.dim(1));
  for (size_t i = static_cast<size_t>(choice); i < index.size(); i += k)
    count[static_cast<size_t>(index[i])] += 1.0 / kTokens;
  return count;
}

TEST_CASE("the largest of gumbel_scores is a sample of the softmax", "[ops][router]") {
  // Deviations of the frequencies are below sqrt(0.25 / 40000) = 0.0025; five of them.
  const Tolerance tolerance{0.0125, 0};
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor plain = gumbel_scores(logits(dtype), 1.0, RandomKey{1});
    auto of = [&](const Tensor& scores, int64_t k, int64_t choice) {
      return Tensor::from<double>({3}, frequencies(top_k(scores, k), choice));
    };
    require_close(of(plain, 1, 0), {0.125, 0.25, 0.625}, tolerance);
    // Without replacement: the second sample, over what the first was.
    auto after = [](double p, double q) { return p * q / (1 - p); };
    require_close(
        of(plain, 2, 1),
        {after(0.25, 0.125) + after(0.625, 0.125), after(0.125, 0.25) + after(0.625, 0.25),
         after(0.125, 0.625) + after(0.25, 0.625)},
        tolerance);
    // Temperature 1/2: odds squared, 1 : 4 : 25.
    require_close(of(gumbel_scores(logits(dtype), 0.5, RandomKey{1}), 1, 0),
                  {1.0 / 30, 4.0 / 30, 25.0 / 30}, tolerance);
  }
}

TEST_CASE("gumbel_scores adds the negative logarithm of an exponential number", "[ops][router]") {
  OpCase scores;
  scores.name = "gumbel_scores";
  scores.inputs = {{.shape = {70, 9}, .low = -3, .high = 3, .is_differentiable = false}};
  scores.dtypes = {DType::f64, DType::f32};
  scores.call = [](const OpArguments& x) {
    return Var(gumbel_scores(x[0].value(), 0.5, RandomKey{4}, 11));
  };
  scores.reference = [](const OpValues& x) {
    auto y = x[0];
    for (size_t i = 0; i < y.size(); ++i) {
      const double u = random_uniform(RandomKey{4}, 99 + i);
      y[i] = y[i] / 0.5 - std::log(-std::log(u + 0x1p-25));
    }
    return OpValues{y};
  };
  check_op(scores);
}

TEST_CASE("gumbel_scores draws by global index, whatever the threads", "[ops][router]") {
  const Tensor all = logits(DType::f32);
  const Tensor whole = gumbel_scores(all, 1.0, RandomKey{2});
  require_same_bits(gumbel_scores(all.slice(0, 777, kTokens), 1.0, RandomKey{2}, 777),
                    whole.slice(0, 777, kTokens));
  const int threads = num_threads();
  set_num_threads(threads == 1 ? 2 : 1);
  require_same_bits(gumbel_scores(all, 1.0, RandomKey{2}), whole);
  set_num_threads(threads);
  for (double score : values_of(whole)) REQUIRE(std::isfinite(score));
}

}  // namespace
}  // namespace stmoe::test
