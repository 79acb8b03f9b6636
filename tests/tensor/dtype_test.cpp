// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/dtype.h"

#include <cmath>
#include <limits>

#include <catch2/catch.hpp>

namespace stmoe {
namespace {

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

// Round to nearest, ties to even, by comparing the distances to both neighbours in f64 (exact).
uint16_t naive_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto below = static_cast<uint16_t>(bits >> 16);
  if (std::isinf(value)) return below;
  const double here = value, low = from_bits(uint32_t{below} << 16);
  const uint32_t above_bits = (uint32_t{below} + 1) << 16;
  // Past the largest finite value the next step counts as 2^128.
  const float above = from_bits(above_bits);
  const double high = std::isinf(above) ? std::copysign(0x1p128, here) : static_cast<double>(above);
  const double to_low = std::abs(here - low), to_high = std::abs(high - here);
  if (to_low != to_high) return to_low < to_high ? below : static_cast<uint16_t>(below + 1);
  return below % 2 == 0 ? below : static_cast<uint16_t>(below + 1);
}

}  // namespace

TEST_CASE("bf16 rounds every f32 to the nearest, ties to even", "[tensor][dtype]") {
  // Every upper half with lower halves at, next to and far from the borders of rounding.
  size_t wrong = 0, checked = 0;
  for (uint32_t upper = 0; upper < 0x10000; ++upper)
    for (uint32_t lower : {0u, 1u, 0x4321u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const float value = from_bits(upper << 16 | lower);
      if (std::isnan(value)) continue;
      ++checked;
      wrong += bf16(value).bits != naive_bf16(value);
    }
  CHECK(wrong == 0);
  CHECK(checked > 400000);
}

TEST_CASE("every bf16 survives the way through f32", "[tensor][dtype]") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    bf16 value;
    value.bits = static_cast<uint16_t>(bits);
    const auto f = static_cast<float>(value);
    if (std::isnan(f))
      REQUIRE(std::isnan(static_cast<float>(bf16(f))));
    else
      REQUIRE(bf16(f).bits == bits);
  }
}

TEST_CASE("a NaN stays a NaN of its sign, and the largest f32 becomes infinity",
          "[tensor][dtype]") {
  // A signalling NaN whose payload lies in the lower half only would become infinity if it were
  // cut.
  for (uint32_t bits : {0x7F800001u, 0xFF800001u, 0x7FFFFFFFu, 0xFFFFFFFFu, 0x7FC00000u}) {
    const bf16 rounded(from_bits(bits));
    CHECK(std::isnan(static_cast<float>(rounded)));
    CHECK((rounded.bits >> 15) == (bits >> 31));
  }
  CHECK(std::isinf(static_cast<float>(bf16(std::numeric_limits<float>::max()))));
  CHECK(static_cast<float>(bf16(from_bits(0x7F7F7FFF))) == from_bits(0x7F7F0000));
}

TEST_CASE("element types have names and sizes", "[tensor][dtype]") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8})
    CHECK(parse_dtype(name_of(dtype)) == dtype);
  CHECK(size_of(DType::f64) == 8);
  CHECK(size_of(DType::bf16) == 2);
  CHECK(size_of(DType::u8) == 1);
  CHECK(is_floating(DType::bf16));
  CHECK(!is_floating(DType::i64));
  CHECK_THROWS_AS(parse_dtype("float32"), UsageError);
  CHECK_THROWS_WITH(parse_dtype("fp16"), Catch::Contains("'fp16' is unknown; known: f64, f32"));
}

TEST_CASE("visit_floating names the C++ type and refuses integers", "[tensor][dtype]") {
  auto size = [](DType dtype) { return visit_floating(dtype, [](auto x) { return sizeof x; }); };
  CHECK(size(DType::f64) == 8);
  CHECK(size(DType::bf16) == 2);
  CHECK_THROWS_AS(size(DType::i32), BugError);
}

}  // namespace stmoe
