// SPDX-License-Identifier: Apache-2.0
// From one element type to another.
#pragma once

#include <type_traits>

#include "lib/base/cpu_level.h"
#include "lib/tensor/dtype.h"

namespace stmoe {
inline namespace STMOE_CPU_LEVEL {

// Calls f(T{}) for any element type.
template <class F>
void visit_any(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i64:
      return f(int64_t{});
    case DType::i32:
      return f(int32_t{});
    case DType::u8:
      return f(uint8_t{});
    case DType::i16:
      return f(int16_t{});
    default:
      return visit_floating(dtype, f);
  }
}

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bf16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bf16>) {
    return bf16(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace STMOE_CPU_LEVEL
}  // namespace stmoe
