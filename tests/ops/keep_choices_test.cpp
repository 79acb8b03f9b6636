// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/keep_choices.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/ops/choices.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;
using Policy = KeepChoices::Policy;

TEST_CASE("keep_choices keeps the first choice and later ones by their policy", "[ops][router]") {
  const Tensor expert = Tensor::from<int32_t>({3, 3}, {0, 1, 2, 2, 1, 0, -1, -1, -1});
  for (DType dtype : {DType::f32, DType::f64}) {
    // 0.25 and 0.125 are exact: a gate equal to its threshold is not kept.
    const Tensor gate =
        Tensor::from<double>({3, 3}, {0.5, 0.375, 0.125, 0.625, 0.25, 0.1875, 0, 0, 0}).to(dtype);
    auto keep = [&](Policy policy, std::vector<double> threshold) {
      return ints(keep_choices(expert, gate, {policy, threshold, RandomKey{1}, 0}));
    };
    REQUIRE(keep(Policy::none, {0, 0}) == Ints{0, -1, -1, 2, -1, -1, -1, -1, -1});
    REQUIRE(keep(Policy::threshold, {0.25, 0.125}) == Ints{0, 1, -1, 2, -1, 0, -1, -1, -1});
    // A gate of at least the threshold is always kept, a gate of 0 never.
    REQUIRE(keep(Policy::random, {0.25, 0.125}) == Ints{0, 1, 2, 2, 1, 0, -1, -1, -1});
    REQUIRE(keep(Policy::random, {0, 0}) == Ints{0, 1, 2, 2, 1, 0, -1, -1, -1});
  }
}

TEST_CASE("random keeps a choice with probability gate over threshold, by global index",
          "[ops][router]") {
  constexpr int64_t kTokens = 20000;
  const Tensor expert = Tensor::zeros({kTokens, 3}, DType::i32);
  std::vector<double> gates;
  for (int64_t n = 0; n < kTokens; ++n) gates.insert(gates.end(), {0.85, 0.1, 0.05});
  const Tensor gate = Tensor::from<double>({kTokens, 3}, gates).to(DType::f32);
  KeepChoices options{Policy::random, {0.4, 0.1}, RandomKey{3}, 0};
  const Tensor kept = keep_choices(expert, gate, options);
  double count[3] = {0, 0, 0};
  const Ints kept_experts = ints(kept);
  for (size_t i = 0; i < kept_experts.size(); ++i) count[i % 3] += kept_experts[i] >= 0;
  REQUIRE(count[0] == kTokens);
  // Binomial deviations sqrt(p (1 - p) / 20000): 0.0031 and 0.0036; five of them.
  REQUIRE(std::abs(count[1] / kTokens - 0.25) < 0.016);
  REQUIRE(std::abs(count[2] / kTokens - 0.5) < 0.018);
  options.first_token = 12345;
  const Tensor part =
      keep_choices(expert.slice(0, 12345, kTokens), gate.slice(0, 12345, kTokens), options);
  require_same_bits(part, kept.slice(0, 12345, kTokens));
  const int threads = num_threads();
  set_num_threads(threads == 1 ? 2 : 1);
  options.first_token = 0;
  require_same_bits(keep_choices(expert, gate, options), kept);
  set_num_threads(threads);
}

TEST_CASE("a GPU keeps the CPU's choices", "[ops][router]") {
  const Tensor expert = draw_choices(777, 3, 40, 6);
  std::vector<double> gates;
  for (uint64_t i = 0; i < 3 * 777; ++i) gates.push_back(0.5 * random_uniform(RandomKey{8}, i));
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor gate = Tensor::from<double>({777, 3}, gates).to(dtype);
    for (Policy policy : {Policy::none, Policy::threshold, Policy::random}) {
      const KeepChoices options{policy, {0.3, 0.1}, RandomKey{3}, 5};
      REQUIRE(ints_on_host(keep_choices(expert.on(Device::emu), gate.on(Device::emu), options)) ==
              ints(keep_choices(expert, gate, options)));
    }
  }
}

}  // namespace
}  // namespace stmoe::test
