// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/descending_order.h"

#include <algorithm>
#include <numeric>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "tests/ops/choices.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("descending_order sorts each group, equals in token order", "[ops][router]") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor value = Tensor::from<double>({6}, {0.25, 0.5, 0.25, 0.75, 0.25, 0.5}).to(dtype);
    REQUIRE(ints(descending_order(value, 1)) == Ints{3, 1, 5, 0, 2, 4});
    REQUIRE(ints(descending_order(value, 2)) == Ints{1, 0, 2, 3, 5, 4});
    REQUIRE(ints(descending_order(value, 6)) == Ints{0, 1, 2, 3, 4, 5});
  }
  REQUIRE(descending_order(Tensor::zeros({0}, DType::f32), 1).numel() == 0);
  REQUIRE_THROWS_WITH(descending_order(Tensor::zeros({6}, DType::f32), 4),
                      Catch::Contains("4 groups of 6 tokens"));
}

TEST_CASE("descending_order agrees with a plain stable sort of many values", "[ops][router]") {
  std::vector<double> values;
  for (uint64_t i = 0; i < 5000; ++i)
    values.push_back(static_cast<double>(random_bits(RandomKey{1}, i) % 200) / 256);
  Ints expected(values.size());
  std::iota(expected.begin(), expected.end(), 0);
  std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  REQUIRE(ints(descending_order(Tensor::from<double>({5000}, values), 1)) == expected);
}

TEST_CASE("a GPU sorts as the CPU does", "[ops][router]") {
  for (const auto& [groups, tokens] :
       {std::pair<int64_t, int64_t>{1, 0}, {1, 1}, {3, 400}, {1, 1300}})
    for (DType dtype : {DType::f32, DType::f64}) {
      std::vector<double> values;
      for (uint64_t i = 0; i < static_cast<uint64_t>(groups * tokens); ++i) {
        const double value = static_cast<double>(random_bits(RandomKey{2}, i) % 300) - 150;
        values.push_back(value == 7 ? -0.0 : value / 256);
      }
      const Tensor value = Tensor::from<double>({groups * tokens}, values).to(dtype);
      REQUIRE(ints_on_host(descending_order(value.on(Device::emu), groups)) ==
              ints(descending_order(value, groups)));
    }
}

}  // namespace
}  // namespace stmoe::test
