// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/choose_tokens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include "tests/ops/choices.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("choose_tokens takes the largest of each column, equals by the lower row",
          "[ops][router]") {
  const Tensor values = Tensor::from<float>({4, 3}, {1, 5, 2,  //
                                                     3, 5, 2,  //
                                                     3, 0, 2,  //
                                                     3, 7, 1});
  const ChosenTokens chosen = choose_tokens(values, 1, 2);
  REQUIRE(ints(chosen.expert_NE) == Ints{-1, 1, 2, 0, -1, 2, 0, -1, -1, -1, 1, -1});
  REQUIRE(ints(chosen.slot_NE) == Ints{-1, 0, 0, 0, -1, 1, 1, -1, -1, -1, 1, -1});
}

TEST_CASE("choose_tokens agrees with a stable sort in every group", "[ops][router]") {
  constexpr int64_t kGroups = 3, kRows = 200, kColumns = 37;
  std::vector<double> values;
  // Coarse values: many are equal.
  for (uint64_t i = 0; i < kGroups * kRows * kColumns; ++i)
    values.push_back(std::floor(random_uniform(RandomKey{3}, i) * 40));
  const Tensor tensor = Tensor::from<double>({kGroups * kRows, kColumns}, values);
  for (int64_t capacity : {0, 1, 17, 200, 300}) {
    const ChosenTokens chosen = choose_tokens(tensor, kGroups, capacity);
    const Ints slot = ints(chosen.slot_NE);
    for (int64_t group = 0; group < kGroups; ++group)
      for (int64_t e = 0; e < kColumns; ++e) {
        auto at = [&](int64_t n) {
          return static_cast<size_t>((group * kRows + n) * kColumns + e);
        };
        Ints order(kRows);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int32_t a, int32_t b) { return values[at(a)] > values[at(b)]; });
        order.resize(static_cast<size_t>(std::min(capacity, kRows)));
        std::ranges::sort(order);
        Ints expected(kRows, -1);
        for (size_t i = 0; i < order.size(); ++i)
          expected[static_cast<size_t>(order[i])] = static_cast<int32_t>(group * capacity + i);
        for (int64_t n = 0; n < kRows; ++n)
          REQUIRE(slot[at(n)] == expected[static_cast<size_t>(n)]);
      }
  }
}

TEST_CASE("choose_tokens leaves out masked rows and takes a NaN last", "[ops][router]") {
  const float nan = std::nanf("");
  const Tensor values = Tensor::from<float>({4, 1}, {9, nan, 1, 2});
  auto taken = [&](int64_t capacity, const Tensor& mask) {
    return ints(choose_tokens(values, 1, capacity, mask).slot_NE);
  };
  REQUIRE(taken(2, Tensor()) == Ints{0, -1, -1, 1});
  REQUIRE(taken(4, Tensor()) == Ints{0, 1, 2, 3});
  REQUIRE(taken(2, Tensor::from<int32_t>({4}, {0, 1, 1, 1})) == Ints{-1, -1, 0, 1});
  REQUIRE(taken(3, Tensor::from<int32_t>({4}, {0, 0, 1, 0})) == Ints{-1, -1, 0, -1});
}

TEST_CASE("choose_tokens refuses groups that do not divide the tokens", "[ops][router]") {
  REQUIRE_THROWS_WITH(choose_tokens(Tensor::zeros({5, 3}, DType::f32), 2, 1),
                      Catch::Contains("2 groups of 5 tokens"));
}

TEST_CASE("a GPU chooses the CPU's tokens", "[ops][router]") {
  struct Sizes {
    int64_t groups, rows, columns, capacity;
  };
  for (const Sizes& s :
       {Sizes{1, 0, 3, 2}, {1, 1, 1, 1}, {2, 90, 37, 17}, {1, 50, 3, 0}, {2, 20, 5, 30}})
    for (DType dtype : {DType::f32, DType::f64}) {
      std::vector<double> values;
      std::vector<int32_t> mask;
      for (int64_t i = 0; i < s.groups * s.rows * s.columns; ++i) {
        const double value =
            std::floor(random_uniform(RandomKey{5}, static_cast<uint64_t>(i)) * 20);
        values.push_back(value == 3 ? std::nan("") : value == 4 ? -0.0 : value - 4);
      }
      for (int64_t n = 0; n < s.groups * s.rows; ++n) mask.push_back(n % 4 == 1 ? 0 : 1);
      const Tensor tensor = Tensor::from<double>({s.groups * s.rows, s.columns}, values).to(dtype);
      for (const Tensor& mask_N : {Tensor(), Tensor::from<int32_t>({s.groups * s.rows}, mask)}) {
        const ChosenTokens host = choose_tokens(tensor, s.groups, s.capacity, mask_N);
        const ChosenTokens chosen =
            choose_tokens(tensor.on(Device::emu), s.groups, s.capacity,
                          mask_N.defined() ? mask_N.on(Device::emu) : mask_N);
        REQUIRE(ints_on_host(chosen.expert_NE) == ints(host.expert_NE));
        REQUIRE(ints_on_host(chosen.slot_NE) == ints(host.slot_NE));
      }
    }
}

}  // namespace
}  // namespace stmoe::test
