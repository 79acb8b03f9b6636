// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/look_up.h"

#include <catch2/catch.hpp>

#include "tests/ops/choices.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("look_up takes the entries of ids, from the period on again", "[ops][router]") {
  const Tensor table = Tensor::from<int32_t>({3}, {7, 8, 9});
  const Tensor id = Tensor::from<int32_t>({5}, {2, 0, 1, 4, 6});
  const Tensor mask = Tensor::from<int32_t>({5}, {1, 1, 0, 1, 1});
  for (Device device : {Device::cpu, Device::emu}) {
    const Tensor there = table.on(device);
    REQUIRE(ints_on_host(look_up(there, id.on(device), 4)) == Ints{9, 7, 8, 7, 9});
    REQUIRE(ints_on_host(look_up(there, id.on(device), 4, mask.on(device))) ==
            Ints{9, 7, -1, 7, 9});
  }
  REQUIRE_THROWS_WITH(look_up(table, Tensor::from<int32_t>({2}, {0, -1}), 4),
                      Catch::Contains("token 1 has id -1 for a table of 3"));
  REQUIRE_THROWS_WITH(look_up(table, Tensor::from<int32_t>({1}, {7}), 4),
                      Catch::Contains("token 0 has id 7"));
}

}  // namespace
}  // namespace stmoe::test
