// SPDX-License-Identifier: Apache-2.0
// Numbers as unsigned integers in the same order; 0 and -0 are one.
#pragma once

#include <cstring>
#include <limits>

#include "cuda/device/device.h"

namespace stmoe::gpu {

STMOE_DEVICE uint32_t ascending_key(float value) {
  const uint32_t bits = value == 0 ? 0 : as_bits(value);
  return bits >> 31 ? ~bits : bits | uint32_t{1} << 31;
}
STMOE_DEVICE uint64_t ascending_key(double value) {
  uint64_t bits = 0;
  if (value != 0) memcpy(&bits, &value, sizeof(bits));
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

template <class T>
using SortKey = decltype(ascending_key(T()));

// A NaN as the lowest number.
template <class T>
STMOE_DEVICE SortKey<T> key_or_lowest(T value) {
  return ascending_key(value == value ? value : -std::numeric_limits<T>::infinity());
}

}  // namespace stmoe::gpu
