// SPDX-License-Identifier: Apache-2.0
// Element types of datasets, little endian in files. bf16 is stored as a 16-bit HDF5 floating-point
// type (8 exponent bits, 7 mantissa bits, bias 127), which h5py, h5dump and HDFView show as
// numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace stmoe {

enum class ElementType : uint8_t { f64, f32, bf16, i64, i32, i16, i8, u64, u32, u16, u8 };

size_t size_of(ElementType type);
std::string_view name_of(ElementType type);
// Throws UsageError listing the names. DType's names are a subset.
ElementType parse_element_type(std::string_view name);

namespace detail {
template <class T>
constexpr ElementType element_type_of() {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>, "not an element type");
  if constexpr (std::is_floating_point_v<T>) {
    static_assert(sizeof(T) == 8 || sizeof(T) == 4);
    return sizeof(T) == 8 ? ElementType::f64 : ElementType::f32;
  } else if constexpr (std::is_signed_v<T>) {
    return sizeof(T) == 8   ? ElementType::i64
           : sizeof(T) == 4 ? ElementType::i32
           : sizeof(T) == 2 ? ElementType::i16
                            : ElementType::i8;
  } else {
    return sizeof(T) == 8   ? ElementType::u64
           : sizeof(T) == 4 ? ElementType::u32
           : sizeof(T) == 2 ? ElementType::u16
                            : ElementType::u8;
  }
}
}  // namespace detail

template <class T>
inline constexpr ElementType kElementTypeOf = detail::element_type_of<T>();

}  // namespace stmoe
