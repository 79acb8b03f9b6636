// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011). A value is a pure function of (key, global index), so it does not depend on
// threads, ranks, or the order of calls.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace stmoe {

// Names one stream of random numbers. Derived keys are independent streams:
// key.fold("dropout").fold(layer).fold(step).
struct RandomKey {
  uint64_t value = 0;
  RandomKey fold(uint64_t data) const;
  RandomKey fold(std::string_view name) const;
  bool operator==(const RandomKey&) const = default;
};

// Four 32-bit words for counter block `counter` of the stream `key`.
// Kernels of a GPU call it too (constexpr).
constexpr std::array<uint32_t, 4> philox4x32(RandomKey key, uint64_t counter) {
  uint32_t k0 = static_cast<uint32_t>(key.value), k1 = static_cast<uint32_t>(key.value >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// The 32 random bits of element `index`: word index % 4 of block index / 4.
constexpr uint32_t random_bits(RandomKey key, uint64_t index) {
  return philox4x32(key, index / 4)[index % 4];
}
// out[i] = random_bits(key, first_index + i), many counters side by side. Kernels call
// fill_random_words (random_words.h), which is compiled for their own instruction set.
void fill_random_bits(RandomKey key, uint64_t first_index, std::span<uint32_t> out);

// Uniform in [0, 1) with 24 bits, exact in f32.
constexpr float uniform_from_bits(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

// 53-bit uniform in (0, 1) from two words.
constexpr double open_uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

constexpr float random_uniform(RandomKey key, uint64_t index) {
  return uniform_from_bits(random_bits(key, index));
}

// Element `index` of a stream of standard normal values (Box-Muller in f64; bit-identical for every
// caller).
double random_normal(RandomKey key, uint64_t index);

// Standard normal truncated to [-2, 2] by inversion, NOT rescaled to unit variance (see docs of the
// initialisers).
double random_truncated_normal(RandomKey key, uint64_t index);

// A sequential reader of one stream, for code that draws a data-dependent number of values.
class RandomStream {
 public:
  explicit RandomStream(RandomKey key, uint64_t position = 0) : key_(key), position_(position) {}
  uint32_t bits() { return random_bits(key_, position_++); }
  uint64_t bits64() {
    uint64_t high = bits();
    return (high << 32) | bits();
  }
  double uniform() { return static_cast<double>(bits64() >> 11) * 0x1p-53; }
  // Uniform in {0, ..., bound - 1}, without bias; bound > 0.
  uint64_t below(uint64_t bound);
  uint64_t position() const { return position_; }

 private:
  RandomKey key_;
  uint64_t position_;
};

}  // namespace stmoe
