// SPDX-License-Identifier: Apache-2.0
// The parts of noisy top-k gating: normal noise, sums of gates, the smooth load, CV^2.
#include <algorithm>
#include <cmath>
#include <functional>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "lib/ops/choice_sums.h"
#include "lib/ops/cv_squared.h"
#include "lib/ops/normal_noise.h"
#include "lib/ops/top_k.h"
#include "lib/ops/top_k_load.h"
#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

TEST_CASE("normal_noise is numbered globally", "[ops][router]") {
  const int threads = num_threads();
  for (int count : {1, 2}) {
    set_num_threads(count);
    const Tensor noise = normal_noise({5000, 2}, DType::f64, RandomKey{4}, 7);
    for (uint64_t i : {0, 1, 4095, 4096, 9999})
      REQUIRE(noise.span<double>()[i] == random_normal(RandomKey{4}, 7 + i));
  }
  set_num_threads(threads);
}

TEST_CASE("normal_noise is the same on a device", "[ops][router]") {
  OpCase noise;
  noise.name = "normal_noise";
  noise.inputs = {{.shape = {}, .is_differentiable = false}};
  noise.dtypes = {DType::f64, DType::f32};
  noise.call = [](const OpArguments& x) {
    return Var(normal_noise({70, 9}, x.dtype, RandomKey{4}, 7, x.device));
  };
  noise.reference = [](const OpValues&) {
    OpValues y(1);
    for (uint64_t i = 0; i < 630; ++i) y[0].push_back(random_normal(RandomKey{4}, 7 + i));
    return y;
  };
  check_op(noise);
}

OpCase sums_case(int64_t tokens, int64_t k, int64_t experts, uint64_t missing) {
  const Tensor expert_NK = draw_choices(tokens, k, experts, missing);
  OpCase result;
  result.name = format("choice_sums {}x{} of {}", tokens, k, experts);
  result.inputs = {{{tokens, k}, 0, 1}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return choice_sums(x[0], x.on_device(expert_NK), experts);
  };
  result.reference = [=](const OpValues& x) {
    OpValues y = {std::vector<double>(static_cast<size_t>(experts))};
    const auto expert = ints(expert_NK);
    for (size_t i = 0; i < expert.size(); ++i)
      if (expert[i] >= 0) y[0][static_cast<size_t>(expert[i])] += x[0][i];
    return y;
  };
  return result;
}

TEST_CASE("choice_sums adds what each expert gets", "[ops][router]") {
  check_ops({sums_case(1, 1, 1, 0), sums_case(0, 2, 3, 0), sums_case(9, 2, 4, 3),
             sums_case(700, 3, 8, 5), sums_case(900, 2, 300, 0)});
  REQUIRE_THROWS_WITH(
      choice_sums(Var(Tensor::zeros({1, 1}, DType::f32)), Tensor::from<int32_t>({1, 1}, {4}), 3),
      Catch::Contains("expert 4 of 3"));
}

OpCase cv_case(int64_t experts, double low, double high) {
  OpCase result;
  result.name = format("cv_squared of {}", experts);
  result.inputs = {{{experts}, low, high}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [](const OpArguments& x) { return cv_squared(x[0]); };
  result.reference = [](const OpValues& x) {
    double mean = 0, squares = 0;
    const double count = static_cast<double>(x[0].size());
    for (double value : x[0]) mean += value / count;
    for (double value : x[0]) squares += value * value / count;
    return OpValues{{(squares - mean * mean) / (mean * mean + 1e-10)}};
  };
  return result;
}

TEST_CASE("cv_squared is the variance over the squared mean", "[ops][router]") {
  check_ops({cv_case(1, 1, 2), cv_case(2, 0, 1), cv_case(64, 3, 9), cv_case(600, 3, 9)});
  REQUIRE(cv_squared(Var(Tensor::full({4}, DType::f32, 3.0))).value().item() == 0);
}

OpCase load_case(int64_t tokens, int64_t experts, int64_t k, bool is_masked) {
  std::vector<int32_t> mask(static_cast<size_t>(tokens), 1);
  if (is_masked)
    for (size_t n = 0; n < mask.size(); n += 3) mask[n] = 0;
  const Tensor mask_N = Tensor::from<int32_t>({tokens}, mask);
  OpCase result;
  result.name =
      format("top_k_load {}x{}, {} kept{}", tokens, experts, k, is_masked ? ", masked" : "");
  const Shape shape = {tokens, experts};
  result.inputs = {{shape, -1, 1}, {shape, -2, 2}, {shape, 0.3, 2}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return top_k_load({x[0], x[1], x[2]}, top_k(x[1].value(), k + 1, x.on_device(mask_N)));
  };
  // The definition: against the k-th largest of the other experts' noisy values.
  result.reference = [=](const OpValues& x) {
    OpValues load = {std::vector<double>(static_cast<size_t>(experts))};
    for (size_t n = 0; n < mask.size(); ++n)
      for (size_t e = 0; mask[n] != 0 && e < static_cast<size_t>(experts); ++e) {
        const size_t first = n * static_cast<size_t>(experts);
        std::vector<double> others;
        for (size_t i = 0; i < static_cast<size_t>(experts); ++i)
          if (i != e) others.push_back(x[1][first + i]);
        std::ranges::sort(others, std::greater<>());
        const double z = (x[0][first + e] - others[static_cast<size_t>(k - 1)]) / x[2][first + e];
        load[0][e] += 0.5 * (1 + std::erf(z / std::sqrt(2.0)));
      }
    return load;
  };
  return result;
}

TEST_CASE("top_k_load sums the probabilities of being among the k largest", "[ops][router]") {
  check_ops({load_case(1, 2, 1, false), load_case(7, 3, 2, false), load_case(12, 5, 4, true),
             load_case(300, 40, 2, true)});
}

TEST_CASE("noisy gating speed", "[ops][router][.bench]") {
  time_op(sums_case(8192, 2, 128, 0));
  time_op(load_case(8192, 128, 2, false));
}

}  // namespace
}  // namespace stmoe::test
