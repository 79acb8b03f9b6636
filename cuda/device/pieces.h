// SPDX-License-Identifier: Apache-2.0
// Rows read and written piece by piece: 16 bytes where rows and addresses allow, else element by
// element, by the same kernel.
#pragma once

#include "cuda/device/device.h"

namespace stmoe::gpu {

// Neighbours in a row, at an address that is a multiple of their size.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Piece {
  T values[kCount];
};

template <class T, int kCount>
STMOE_DEVICE Piece<T, kCount> load_piece(const T* from) {
  return *reinterpret_cast<const Piece<T, kCount>*>(from);
}
template <class T, int kCount>
STMOE_DEVICE void store_piece(T* to, const Piece<T, kCount>& piece) {
  *reinterpret_cast<Piece<T, kCount>*>(to) = piece;
}

// Elements of 16 bytes.
template <class T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// Whether rows of `width` elements from these addresses on begin at multiples of 16 bytes.
template <class... T>
bool has_wide_rows(int64_t width, const T*... data) {
  return ((width * static_cast<int64_t>(sizeof(T)) % 16 == 0) && ...) &&
         ((reinterpret_cast<uintptr_t>(data) % 16 == 0) && ...);
}

}  // namespace stmoe::gpu
