// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/weight_tensor.h"

#include <cstring>

#include <catch2/catch.hpp>

#include "lib/base/random.h"

namespace stmoe::test {
namespace {

// Everything that happens to the lower half of the bits happens with each of these upper halves,
// and the other way round: zeros, the smallest and largest of both signs, infinities, ordinary.
const std::vector<uint32_t> kUppers = {0x0000, 0x0001, 0x007F, 0x0080, 0x3F7F, 0x3F80, 0x7F7E,
                                       0x7F7F, 0x8000, 0x8001, 0xBF80, 0xFF7E, 0xFF7F};
const std::vector<uint32_t> kLowers = {0x0000, 0x0001, 0x4321, 0x7FFE, 0x7FFF,
                                       0x8000, 0x8001, 0x8002, 0xC000, 0xFFFF};

bool is_nan(uint32_t bits) { return (bits & 0x7FFFFFFFu) > 0x7F800000u; }

// The halves are the bits again, and the upper one the nearest bf16, at a tie the larger one.
bool splits_well(uint32_t bits) {
  const SplitBits halves = split_bits(bits);
  if (is_nan(bits)) return is_nan(uint32_t{halves.high} << 16) && is_nan(join_bits(halves));
  const bool is_tie = (bits & 0xFFFFu) == 0x8000u;
  const uint16_t nearest = bf16(std::bit_cast<float>(bits)).bits;
  return join_bits(halves) == bits &&
         halves.high == (is_tie ? static_cast<uint16_t>((bits >> 16) + 1) : nearest);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.numel() == b.numel() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

Tensor odd_values(const Shape& shape) {
  const Tensor values = Tensor::persistent(shape, DType::f32);
  for (size_t i = 0; i < values.span<float>().size(); ++i)
    values.span<float>()[i] = 2 * random_uniform(RandomKey{3}, i) - 1;
  return values;
}

}  // namespace

TEST_CASE("an f32 is exactly its two halves", "[tensor][weights]") {
  for (uint32_t upper = 0; upper <= 0xFFFF; ++upper)
    for (uint32_t lower : kLowers) REQUIRE(splits_well(upper << 16 | lower));
  for (uint32_t upper : kUppers)
    for (uint32_t lower = 0; lower <= 0xFFFF; ++lower) REQUIRE(splits_well(upper << 16 | lower));
}

TEST_CASE("every f32 is exactly its two halves", "[tensor][weights][.slow]") {
  uint32_t bits = 0;
  do {
    if (!splits_well(bits)) FAIL(bits);
  } while (++bits != 0);
}

TEST_CASE("stochastic rounding goes up as often as the value says", "[tensor][weights]") {
  for (uint32_t upper : {0x3F80u, 0xC2C8u, 0x0001u})
    for (uint32_t lower : kLowers) {
      uint32_t times_up = 0;
      for (uint32_t word = 0; word <= 0xFFFF; ++word) {
        const uint16_t rounded = round_stochastically(upper << 16 | lower, 0xABCD0000u | word);
        REQUIRE((rounded == upper || rounded == upper + 1));
        times_up += rounded == upper + 1;
      }
      CHECK(times_up == lower);
    }
  CHECK(round_stochastically(0x7F800000u, 0xFFFFFFFFu) == 0x7F80);
  CHECK(round_stochastically(0xFF800000u, 0xFFFFFFFFu) == 0xFF80);
  CHECK(is_nan(uint32_t{round_stochastically(0x7FFFFFFFu, 0xFFFFFFFFu)} << 16));
  CHECK(is_nan(uint32_t{round_stochastically(0x7F800001u, 0)} << 16));
}

TEST_CASE("weights come back from every storage and device", "[tensor][weights]") {
  const Tensor values = odd_values({7, 33});
  for (WeightStorage storage :
       {WeightStorage::f32, WeightStorage::split, WeightStorage::bf16_stochastic}) {
    const bool is_exact = storage != WeightStorage::bf16_stochastic;
    const Tensor expected = is_exact ? values : values.to(DType::bf16).to(DType::f32);
    const WeightTensor weight = WeightTensor::persistent({7, 33}, storage, Device::cpu);
    CHECK(weight.bytes() == (is_exact ? 4u : 2u) * 7 * 33);
    CHECK(weight.dtype() == DType::f32);
    CHECK(same_bits(weight.on_host(), Tensor::zeros({7, 33}, DType::f32)));
    weight.assign(values);
    CHECK(same_bits(weight.on_host(), expected));
    CHECK(same_bits(weight.slice_of(7, 3).on_host(), expected.slice(0, 3, 4).clone()));
    // What was stored is stored again as it was.
    weight.assign(weight.on_host());
    CHECK(same_bits(weight.on_host(), expected));
  }
  CHECK_THROWS_AS(parse_weight_storage("f16"), UsageError);
  CHECK(parse_weight_storage("split") == WeightStorage::split);
}

}  // namespace stmoe::test
