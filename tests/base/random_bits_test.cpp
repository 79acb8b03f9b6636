// SPDX-License-Identifier: Apache-2.0
// Many random words at once are the same words as one at a time.
#include <array>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/random.h"

namespace stmoe {
namespace {

TEST_CASE("filled random bits are the bits of each index, wherever the run starts and ends",
          "[base][random]") {
  const RandomKey key = RandomKey{7}.fold("jitter");
  for (uint64_t first :
       {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{4}, uint64_t{130}, (uint64_t{1} << 34) - 6})
    for (size_t count : {0u, 1u, 2u, 5u, 63u, 64u, 65u, 131u, 200u}) {
      std::vector<uint32_t> bits(count + 1, 0xABCDu);
      fill_random_bits(key, first, {bits.data(), count});
      for (size_t i = 0; i < count; ++i) REQUIRE(bits[i] == random_bits(key, first + i));
      REQUIRE(bits[count] == 0xABCDu);
    }
}

}  // namespace
}  // namespace stmoe
