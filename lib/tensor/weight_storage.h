// SPDX-License-Identifier: Apache-2.0
// How the values of a trained f32 weight lie in memory.
//   f32              as they are
//   split            exactly, in two tensors of 16 bits: the bf16 that products take, and what is
//                    left. With u the bits of the f32: high = (u + 2^15) >> 16, low = u - 2^16 high
//                    in [-2^15, 2^15). Rounded half up, not to even: at a tie 2^15 would be needed
//                    as well. Values of magnitude 3.39e38 and more have an infinite high half.
//   bf16_stochastic  only a bf16, to which updates are rounded at random, up with the probability
//                    that makes the result right on average
#pragma once

#include <cstdint>
#include <string_view>

namespace stmoe {

enum class WeightStorage : uint8_t { f32, split, bf16_stochastic };

// Throws UsageError listing the names.
WeightStorage parse_weight_storage(std::string_view name);

struct SplitBits {
  uint16_t high;
  int16_t low;
};

// Of the bits of an f32; all NaNs become one.
constexpr SplitBits split_bits(uint32_t bits) {
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FC0, 0};
  const uint32_t high = (bits + 0x8000u) >> 16;
  return {static_cast<uint16_t>(high),
          static_cast<int16_t>(static_cast<uint16_t>(bits - (high << 16)))};
}

constexpr uint32_t join_bits(SplitBits halves) {
  return (uint32_t{halves.high} << 16) + static_cast<uint32_t>(int32_t{halves.low});
}

// The bf16 bits of an f32 rounded by the lower half of a random word. Infinities and NaNs stay.
constexpr uint16_t round_stochastically(uint32_t bits, uint32_t word) {
  const uint32_t rounded = (bits + (word & 0xFFFFu)) >> 16, quiet_nan = (bits >> 16) | 0x40u;
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(quiet_nan);
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) == 0x7F800000u ? bits >> 16 : rounded);
}

}  // namespace stmoe
