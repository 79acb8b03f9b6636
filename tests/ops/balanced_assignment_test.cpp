// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/balanced_assignment.h"

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/ops/choices.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

Tensor draw_scores(int64_t tokens, int64_t experts, uint64_t seed) {
  std::vector<double> scores;
  for (int64_t i = 0; i < tokens * experts; ++i)
    scores.push_back(random_normal(RandomKey{seed}, static_cast<uint64_t>(i)));
  return Tensor::from<double>({tokens, experts}, scores);
}

std::vector<int64_t> counts(const Ints& expert, int64_t experts) {
  std::vector<int64_t> count(static_cast<size_t>(experts));
  for (int32_t e : expert)
    if (e >= 0) ++count[static_cast<size_t>(e)];
  return count;
}

TEST_CASE("balanced_assignment by hand: a token moves on so that another can stay",
          "[ops][router]") {
  // All prefer expert 0, which takes two. Moving token 2 to expert 1 costs 1, token 0 costs 3,
  // token 1 costs 2; expert 1 is then full.
  const Tensor first = Tensor::from<double>({4, 2}, {4, 1, 4, 2, 4, 3, 0, 1});
  REQUIRE(ints(balanced_assignment(first, 1).expert_N1) == Ints{0, 0, 1, 1});
  // Expert 0 has one too many. Straight to expert 2 costs 5 (either token); token 0 to expert 1 and
  // from there token 2 to expert 2 costs 1 + 1.
  const Tensor chain = Tensor::from<double>({3, 3}, {5, 4, 0, 5, 0, 0, 0, 5, 4});
  const BalancedAssignment moved = balanced_assignment(chain, 1);
  REQUIRE(ints(moved.expert_N1) == Ints{1, 0, 2});
  REQUIRE(moved.num_chains == 1);
  // Equals: the lower expert, then the lower token moves.
  REQUIRE(ints(balanced_assignment(Tensor::zeros({4, 2}, DType::f32), 1).expert_N1) ==
          Ints{1, 1, 0, 0});
}

// The largest total by trying everything.
double best_total(const Tensor& scores, std::vector<int64_t>& room, int64_t token) {
  if (token == scores.dim(0)) return 0;
  double best = -1e300;
  for (int64_t e = 0; e < scores.dim(1); ++e) {
    if (room[static_cast<size_t>(e)] == 0) continue;
    --room[static_cast<size_t>(e)];
    best = std::max(best, scores.data<double>()[token * scores.dim(1) + e] +
                              best_total(scores, room, token + 1));
    ++room[static_cast<size_t>(e)];
  }
  return best;
}

TEST_CASE("balanced_assignment finds the largest sum of all", "[ops][router]") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const int64_t tokens = 1 + static_cast<int64_t>(seed % 8);
    const int64_t experts = 1 + static_cast<int64_t>(seed / 3 % 4);
    CAPTURE(seed, tokens, experts);
    const Tensor scores = draw_scores(tokens, experts, seed);
    const Ints expert = ints(balanced_assignment(scores, 1).expert_N1);
    double total = 0;
    for (size_t t = 0; t < expert.size(); ++t)
      total += scores.data<double>()[static_cast<int64_t>(t) * experts + expert[t]];
    std::vector<int64_t> room(static_cast<size_t>(experts), (tokens + experts - 1) / experts);
    REQUIRE(total == Approx(best_total(scores, room, 0)).epsilon(1e-12));
  }
}

TEST_CASE("balanced_assignment takes one chain for each token too many", "[ops][router]") {
  const Tensor scores = draw_scores(400, 8, 3);
  Ints favourite;
  for (int64_t t = 0; t < 400; ++t) {
    const double* row = scores.data<double>() + t * 8;
    favourite.push_back(static_cast<int32_t>(std::max_element(row, row + 8) - row));
  }
  int64_t too_many = 0;
  for (int64_t count : counts(favourite, 8)) too_many += std::max<int64_t>(0, count - 50);
  const BalancedAssignment result = balanced_assignment(scores, 1);
  REQUIRE(too_many > 5);
  REQUIRE(result.num_chains == too_many);
  REQUIRE(counts(ints(result.expert_N1), 8) == std::vector<int64_t>(8, 50));
}

TEST_CASE("balanced_assignment treats groups apart and leaves masked tokens out", "[ops][router]") {
  const Tensor scores = draw_scores(30, 4, 5);
  const Ints all = ints(balanced_assignment(scores, 3).expert_N1);
  for (int64_t group = 0; group < 3; ++group) {
    const Tensor part = scores.slice(0, 10 * group, 10 * group + 10).contiguous();
    REQUIRE(ints(balanced_assignment(part, 1).expert_N1) ==
            Ints(all.begin() + 10 * group, all.begin() + 10 * group + 10));
  }
  Ints mask(30, 1);
  for (size_t n = 0; n < 30; n += 4) mask[n] = 0;
  const Ints some =
      ints(balanced_assignment(scores, 1, Tensor::from<int32_t>({30}, mask)).expert_N1);
  for (size_t n = 0; n < 30; ++n) REQUIRE((some[n] < 0) == (mask[n] == 0));
  REQUIRE(std::ranges::max(counts(some, 4)) == 6);  // of 22 tokens
  const Ints none = ints(balanced_assignment(scores, 1, Tensor::zeros({30}, DType::i32)).expert_N1);
  REQUIRE(none == Ints(30, -1));
}

TEST_CASE("balanced_assignment survives scores that are not finite, and threads", "[ops][router]") {
  Tensor scores = draw_scores(64, 4, 7).to(DType::f32);
  const int threads = num_threads();
  set_num_threads(1);
  const Ints one = ints(balanced_assignment(scores, 8).expert_N1);
  set_num_threads(3);
  REQUIRE(ints(balanced_assignment(scores, 8).expert_N1) == one);
  set_num_threads(threads);
  scores.data<float>()[5] = std::nanf("");
  scores.data<float>()[9] = -INFINITY;
  scores.data<float>()[13] = INFINITY;
  REQUIRE(counts(ints(balanced_assignment(scores, 1).expert_N1), 4) == std::vector<int64_t>(4, 16));
  REQUIRE_THROWS_WITH(balanced_assignment(scores, 5), Catch::Contains("5 groups"));
}

TEST_CASE("balanced_assignment of a device's scores is on the device", "[ops][router]") {
  std::vector<double> values;
  for (uint64_t i = 0; i < 40 * 5; ++i) values.push_back(random_uniform(RandomKey{6}, i));
  const Tensor scores = Tensor::from<double>({40, 5}, values).to(DType::f32);
  const Tensor mask = Tensor::from<int32_t>({40}, std::vector<int32_t>(40, 1));
  const auto host = balanced_assignment(scores, 2, mask);
  const auto there = balanced_assignment(scores.on(Device::emu), 2, mask.on(Device::emu));
  REQUIRE(there.expert_N1.device() == Device::emu);
  require_same_bits(there.expert_N1.on(Device::cpu), host.expert_N1);
}

}  // namespace
}  // namespace stmoe::test
