// SPDX-License-Identifier: Apache-2.0
#include "lib/base/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lib/base/error.h"

namespace stmoe {
namespace {

// The finaliser of SplitMix64: a bijection that mixes all bits.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// 53-bit uniform in (0, 1) from two words.
double open_uniform(uint32_t high, uint32_t low) {
  uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

// Inverse of the standard normal distribution function by bisection-free Newton steps from a
// rational start (Abramowitz and Stegun 26.2.23, error < 4.5e-4; three Newton steps reach f64
// precision on the range used).
double inverse_normal(double p) {
  double tail = p < 0.5 ? p : 1.0 - p;
  double t = std::sqrt(-2.0 * std::log(tail));
  double x = t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                     (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  if (p < 0.5) x = -x;
  for (int step = 0; step < 3; ++step) {
    double value = 0.5 * std::erfc(-x / std::numbers::sqrt2);
    double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
    x -= (value - p) / density;
  }
  return x;
}

constexpr int kLanes = 16, kWords = 4;

// The words of kLanes consecutive counters in the order of the elements. A lane is 64 bits wide
// with the upper half zero, and rounds are unrolled: so the compiler finds the widening vector
// product and keeps the lanes in registers.
void philox_group(RandomKey key, uint64_t first_counter, uint32_t* words) {
  constexpr uint64_t kLow = 0xFFFFFFFFu;
  uint64_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t counter = first_counter + static_cast<uint64_t>(i);
    c0[i] = counter & kLow;
    c1[i] = counter >> 32;
    c2[i] = c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(key.value), k1 = static_cast<uint32_t>(key.value >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t p0 = 0xD2511F53u * (c0[i] & kLow), p1 = 0xCD9E8D57u * (c2[i] & kLow);
      c0[i] = (p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = (p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = p1 & kLow;
      c3[i] = p0 & kLow;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kLanes; ++i) {
    words[kWords * i] = static_cast<uint32_t>(c0[i]);
    words[kWords * i + 1] = static_cast<uint32_t>(c1[i]);
    words[kWords * i + 2] = static_cast<uint32_t>(c2[i]);
    words[kWords * i + 3] = static_cast<uint32_t>(c3[i]);
  }
}

}  // namespace

void fill_random_bits(RandomKey key, uint64_t first_index, std::span<uint32_t> out) {
  constexpr size_t kGroup = kLanes * kWords;
  size_t done = 0;
  for (; done < out.size() && (first_index + done) % kWords != 0; ++done)
    out[done] = random_bits(key, first_index + done);
  for (; done + kGroup <= out.size(); done += kGroup)
    philox_group(key, (first_index + done) / kWords, out.data() + done);
  if (done == out.size()) return;
  std::array<uint32_t, kGroup> last;
  philox_group(key, (first_index + done) / kWords, last.data());
  std::copy_n(last.begin(), out.size() - done, out.begin() + static_cast<int64_t>(done));
}

RandomKey RandomKey::fold(uint64_t data) const { return {mix(value ^ mix(data))}; }

RandomKey RandomKey::fold(std::string_view name) const {
  uint64_t hash = 0xCBF29CE484222325u;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001B3u;
  return fold(hash);
}

double random_normal(RandomKey key, uint64_t index) {
  auto words = philox4x32(key, index);
  double radius = std::sqrt(-2.0 * std::log(open_uniform(words[0], words[1])));
  return radius * std::cos(2.0 * std::numbers::pi * open_uniform(words[2], words[3]));
}

double random_truncated_normal(RandomKey key, uint64_t index) {
  constexpr double kLow = 0.022750131948179209;  // normal distribution function at -2
  auto words = philox4x32(key, index);
  return inverse_normal(kLow + (1.0 - 2.0 * kLow) * open_uniform(words[0], words[1]));
}

uint64_t RandomStream::below(uint64_t bound) {
  STMOE_CHECK(bound > 0);
  const uint64_t limit = bound * (UINT64_MAX / bound);
  for (;;) {
    uint64_t value = bits64();
    if (value < limit) return value % bound;
  }
}

}  // namespace stmoe
