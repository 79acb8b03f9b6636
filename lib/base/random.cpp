// SPDX-License-Identifier: Apache-2.0
#include "lib/base/random.h"

#include <cmath>
#include <numbers>

#include "lib/base/error.h"
#include "lib/base/random_words.h"

namespace stmoe {
namespace {

// The finaliser of SplitMix64: a bijection that mixes all bits.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
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

}  // namespace

void fill_random_bits(RandomKey key, uint64_t first_index, std::span<uint32_t> out) {
  fill_random_words(key, first_index, out.data(), static_cast<int64_t>(out.size()));
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
