// SPDX-License-Identifier: Apache-2.0
#include "lib/data/permutation.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "lib/base/error.h"

namespace stmoe {
namespace {
constexpr uint64_t kRounds = 8;
}

Permutation::Permutation(uint64_t count, RandomKey key) : count_(count), key_(key) {
  STMOE_CHECK(count > 0 && count <= uint64_t{1} << 62, "permutation of {} elements", count);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(count - 1)) + 1) / 2);
}

uint64_t Permutation::operator()(uint64_t index) const {
  STMOE_CHECK(index < count_, "permutation: index {} of {}", index, count_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = index;
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = philox4x32(key_, (round << 56) | right)[0];
      left = std::exchange(right, (left ^ mixed) & mask);
    }
    value = left << half_bits_ | right;
  } while (value >= count_);
  return value;
}

}  // namespace stmoe
