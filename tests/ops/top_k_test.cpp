// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/top_k.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "tests/ops/choices.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("top_k lists the largest first, equals by the lower column", "[ops][router]") {
  const Tensor values = Tensor::from<float>({4, 4}, {1, 3, 2, 0,  //
                                                     2, 2, 2, 2,  //
                                                     0, 5, 1, 5,  //
                                                     -1, -2, -1, -3});
  REQUIRE(ints(top_k(values, 1)) == Ints{1, 0, 1, 0});
  REQUIRE(ints(top_k(values, 2)) == Ints{1, 2, 0, 1, 1, 3, 0, 2});
  REQUIRE(ints(top_k(values, 4)) == Ints{1, 2, 0, 3, 0, 1, 2, 3, 1, 3, 2, 0, 0, 2, 1, 3});
}

TEST_CASE("top_k agrees with a stable sort", "[ops][router]") {
  constexpr int64_t kRows = 600, kColumns = 37;
  std::vector<double> values;
  // Coarse values: many are equal.
  for (uint64_t i = 0; i < kRows * kColumns; ++i)
    values.push_back(std::floor(random_uniform(RandomKey{3}, i) * 12));
  const Tensor tensor = Tensor::from<double>({kRows, kColumns}, values);
  for (int64_t k : {1, 2, 5, 37}) {
    const auto chosen = ints(top_k(tensor, k));
    for (int64_t row = 0; row < kRows; ++row) {
      const double* x = values.data() + row * kColumns;
      Ints order(kColumns);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return x[a] > x[b]; });
      REQUIRE(std::equal(order.begin(), order.begin() + k, chosen.begin() + row * k));
    }
  }
}

TEST_CASE("top_k makes no choice where the mask is 0, and none of a NaN over a number",
          "[ops][router]") {
  const float nan = std::nanf("");
  const Tensor values = Tensor::from<float>({3, 3}, {1, 2, 3, nan, -1, nan, nan, nan, nan});
  REQUIRE(ints(top_k(values, 2, Tensor::from<int32_t>({3}, {0, 1, 1}))) ==
          Ints{-1, -1, 1, 0, 0, 1});
}

TEST_CASE("a GPU makes the CPU's choices", "[ops][router]") {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{0, 3}, {1, 1}, {61, 37}, {9, 300}})
    for (DType dtype : {DType::f32, DType::f64}) {
      std::vector<double> values;
      std::vector<int32_t> mask;
      for (int64_t i = 0; i < rows * columns; ++i) {
        const double value =
            std::floor(random_uniform(RandomKey{4}, static_cast<uint64_t>(i)) * 12);
        values.push_back(value == 5 ? std::nan("") : value - 4);
      }
      for (int64_t n = 0; n < rows; ++n) mask.push_back(n % 5 == 1 ? 0 : 1);
      const Tensor tensor = Tensor::from<double>({rows, columns}, values).to(dtype);
      const Tensor mask_N = Tensor::from<int32_t>({rows}, mask);
      for (int64_t k : {int64_t{1}, std::min<int64_t>(2, columns), columns}) {
        const Tensor there = tensor.on(Device::emu);
        REQUIRE(ints_on_host(top_k(there, k)) == ints(top_k(tensor, k)));
        REQUIRE(ints_on_host(top_k(there, k, mask_N.on(Device::emu))) ==
                ints(top_k(tensor, k, mask_N)));
      }
    }
}

TEST_CASE("top_k refuses more choices than columns", "[ops][router]") {
  REQUIRE_THROWS_WITH(top_k(Tensor::zeros({2, 3}, DType::f32), 4),
                      Catch::Contains("k is 4 for 3 columns"));
}

}  // namespace
}  // namespace stmoe::test
