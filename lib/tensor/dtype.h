// SPDX-License-Identifier: Apache-2.0
// Element types. bf16 is the upper half of an f32, rounded to nearest even; NaN stays NaN.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/error.h"

namespace stmoe {

struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float value) {
    uint32_t u = std::bit_cast<uint32_t>(value);
    // Branch-free, so that loops over it become vector code: a NaN keeps its sign and becomes
    // quiet.
    uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    uint32_t quiet_nan = (u >> 16) | 0x40u;
    bits = static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded);
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};
static_assert(sizeof(bf16) == 2);

enum class DType : uint8_t { f64, f32, bf16, i64, i32, u8, i16 };

size_t size_of(DType dtype);
std::string_view name_of(DType dtype);
// Throws UsageError listing the names.
DType parse_dtype(std::string_view name);
inline bool is_floating(DType dtype) { return dtype <= DType::bf16; }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::i16;
};
template <class T>
inline constexpr DType kDTypeOf = DTypeOf<T>::value;

// The type in which kernels compute for element type T: f64 for f64, f32 for f32 and bf16.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

// Calls f(T{}) for the floating type that `dtype` names; throws BugError for integer types.
template <class F>
decltype(auto) visit_floating(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(double{});
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    default:
      fail_check(__FILE__, __LINE__, "is_floating(dtype)", std::string(name_of(dtype)));
  }
}

}  // namespace stmoe
