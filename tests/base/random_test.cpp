// SPDX-License-Identifier: Apache-2.0
#include "lib/base/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/error.h"

namespace stmoe {
namespace {

using Words = std::array<uint32_t, 4>;

// Philox4x32-10 with the whole counter, step by step as in the paper.
Words naive_philox(Words counter, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

struct Moments {
  double mean = 0, variance = 0, skew = 0, kurtosis = 0;
};

Moments moments(const std::vector<double>& values) {
  Moments m;
  const auto n = static_cast<double>(values.size());
  for (double x : values) m.mean += x / n;
  for (double x : values) m.variance += (x - m.mean) * (x - m.mean) / n;
  for (double x : values) {
    const double z = (x - m.mean) / std::sqrt(m.variance);
    m.skew += z * z * z / n;
    m.kurtosis += z * z * z * z / n;
  }
  return m;
}

constexpr size_t kDraws = 400000;

std::vector<double> draw(double (*f)(RandomKey, uint64_t)) {
  std::vector<double> values(kDraws);
  for (size_t i = 0; i < kDraws; ++i) values[i] = f(RandomKey{17}.fold("draws"), i);
  return values;
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

}  // namespace

TEST_CASE("philox agrees with the known answers of the Random123 distribution", "[base][random]") {
  CHECK(philox4x32(RandomKey{0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  // The other two vectors use all four counter words: they vouch for the naive form.
  const uint32_t ones = 0xffffffff;
  CHECK(naive_philox({ones, ones, ones, ones}, ones, ones) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(naive_philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  for (uint64_t key : {uint64_t{0}, uint64_t{1}, uint64_t{0xfedcba9876543210}})
    for (uint64_t counter : {uint64_t{5}, uint64_t{0x100000000}, ~uint64_t{0}})
      CHECK(
          philox4x32(RandomKey{key}, counter) ==
          naive_philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                       static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)));
}

TEST_CASE("element i is word i mod 4 of block i / 4", "[base][random]") {
  const RandomKey key{99};
  for (uint64_t i = 0; i < 12; ++i) CHECK(random_bits(key, i) == philox4x32(key, i / 4)[i % 4]);
}

TEST_CASE("folded keys differ from each other and from their order", "[base][random]") {
  const RandomKey key{1};
  std::set<uint64_t> values{key.value};
  for (uint64_t i = 0; i < 1000; ++i) values.insert(key.fold(i).value);
  for (const char* name : {"", "a", "b", "ab", "ba"}) values.insert(key.fold(name).value);
  values.insert(key.fold("a").fold("b").value);
  values.insert(key.fold(uint64_t{1}).fold(uint64_t{2}).value);
  values.insert(key.fold(uint64_t{2}).fold(uint64_t{1}).value);
  CHECK(values.size() == 1009);
  CHECK(key.fold("dropout") == RandomKey{1}.fold("dropout"));
}

TEST_CASE("uniform values lie between 0 and 1, without 1, and have the right moments",
          "[base][random]") {
  CHECK(uniform_from_bits(0xffffffff) < 1);
  CHECK(uniform_from_bits(0xff) == 0);
  const auto values =
      draw([](RandomKey key, uint64_t i) { return static_cast<double>(random_uniform(key, i)); });
  const Moments m = moments(values);
  CHECK(std::abs(m.mean - 0.5) < 5 * std::sqrt(1.0 / 12 / kDraws));
  CHECK(std::abs(m.variance - 1.0 / 12) < 1e-3);
  double correlation = 0;
  for (size_t i = 1; i < kDraws; ++i)
    correlation += 12 * (values[i] - 0.5) * (values[i - 1] - 0.5) / kDraws;
  CHECK(std::abs(correlation) < 5 / std::sqrt(kDraws));
}

TEST_CASE("normal values have the moments of a normal distribution", "[base][random]") {
  const Moments m = moments(draw(random_normal));
  CHECK(std::abs(m.mean) < 5 / std::sqrt(kDraws));
  CHECK(std::abs(m.variance - 1) < 5 * std::sqrt(2.0 / kDraws));
  CHECK(std::abs(m.skew) < 5 * std::sqrt(6.0 / kDraws));
  CHECK(std::abs(m.kurtosis - 3) < 5 * std::sqrt(24.0 / kDraws));
}

TEST_CASE("truncated normal values are cut at two deviations and not rescaled", "[base][random]") {
  const auto values = draw(random_truncated_normal);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  CHECK(*low >= -2);
  CHECK(*high <= 2);
  CHECK(*low < -1.999);
  const Moments m = moments(values);
  CHECK(std::abs(m.mean) < 5 / std::sqrt(kDraws));
  CHECK(std::abs(m.variance - 0.7737413) <
        5e-3);  // 1 - 4 phi(2) / (2 Phi(2) - 1): deviation 0.8796
  CHECK(std::abs(m.skew) < 0.02);
}

TEST_CASE("truncated normal values invert the distribution function", "[base][random]") {
  const RandomKey key{3};
  const double low = normal_cdf(-2);
  for (uint64_t i = 0; i < 2000; ++i) {
    const Words words = philox4x32(key, i);
    const double u =
        (static_cast<double>((uint64_t{words[0]} << 32 | words[1]) >> 11) + 0.5) * 0x1p-53;
    CHECK(std::abs(normal_cdf(random_truncated_normal(key, i)) - (low + (1 - 2 * low) * u)) <
          1e-14);
  }
}

TEST_CASE("a stream reads the elements of its key in order and can be resumed", "[base][random]") {
  const RandomKey key{4};
  RandomStream stream(key);
  CHECK(stream.bits() == random_bits(key, 0));
  CHECK(stream.bits64() == (uint64_t{random_bits(key, 1)} << 32 | random_bits(key, 2)));
  CHECK(stream.position() == 3);
  RandomStream resumed(key, stream.position());
  for (int i = 0; i < 100; ++i) {
    const double value = stream.uniform();
    CHECK((value >= 0 && value < 1));
    CHECK(resumed.uniform() == value);
  }
}

TEST_CASE("below is uniform and without bias", "[base][random]") {
  RandomStream stream(RandomKey{5});
  CHECK(stream.below(1) == 0);
  CHECK_THROWS_AS(stream.below(0), BugError);
  for (uint64_t bound : {uint64_t{2}, uint64_t{7}, uint64_t{10}}) {
    std::vector<double> counts(bound);
    for (size_t i = 0; i < kDraws; ++i) ++counts.at(stream.below(bound));
    const double expected = static_cast<double>(kDraws) / static_cast<double>(bound);
    double chi_squared = 0;
    for (double count : counts) chi_squared += (count - expected) * (count - expected) / expected;
    INFO("bound " << bound);
    CHECK(chi_squared < 35);  // 9 degrees of freedom: p < 1e-4
  }
  // Nearly half of all 64-bit values must be drawn again: without that the lower half would be
  // twice as likely.
  const uint64_t bound = (uint64_t{1} << 63) + 1;
  size_t low = 0;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t value = stream.below(bound);
    REQUIRE(value < bound);
    low += value < bound / 2;
  }
  CHECK(std::abs(static_cast<double>(low) - 10000) < 5 * std::sqrt(5000.0));
}

}  // namespace stmoe
