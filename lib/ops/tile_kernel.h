// SPDX-License-Identifier: Apache-2.0
// The innermost product of our own kernels (attention, f64 products, element types without a
// library kernel):
//   C[rows, kPanel] (+)= A[rows, depth] * B[depth, kPanel]
// with the sums of 6 rows kept in registers. B is packed: one panel of kPanel columns, contiguous
// along depth. A is read in place, one element at a time, with any strides. Rows of C are
// contiguous and full panels wide: callers pad.
//
// The element of A and B is float, double, or Bf16Pair: two bf16 values that are neighbours along
// depth, multiplied and summed in f32 by one instruction. Where the processor lacks it, bf16
// operands are packed as float instead (PackedOf<bf16>).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "lib/tensor/dtype.h"

namespace stmoe {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileVectors = 4;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32, kTileVectors = 2;
#else
inline constexpr int kVectorBytes = 16, kTileVectors = 2;
#endif
inline constexpr int kTileRows = 6;

// The low half is the element that comes first along depth.
struct Bf16Pair {
  uint32_t bits;
};

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};

// How elements of type T are packed, and how many of them one packed element holds along depth.
template <class T>
struct PackedOf {
  using type = T;
};
#if defined(__AVX512BF16__)
template <>
struct PackedOf<bf16> {
  using type = Bf16Pair;
};
#else
template <>
struct PackedOf<bf16> {
  using type = float;
};
#endif
template <class Packed>
inline constexpr int kPackedDepth = std::is_same_v<Packed, Bf16Pair> ? 2 : 1;

// The type of sums, and the width of a panel.
template <class Packed>
using TileSum = std::conditional_t<std::is_same_v<Packed, Bf16Pair>, float, Packed>;
template <class Packed>
inline constexpr int kPanel = kTileVectors* kVectorBytes /
                              static_cast<int>(sizeof(TileSum<Packed>));

namespace detail {

template <class T, class V>
inline void multiply_add(V& sum, const T& a, const T* b) {
  sum += (V{} + a) * *reinterpret_cast<const typename VectorOf<T>::unaligned*>(b);
}
#if defined(__AVX512BF16__)
template <class V>
inline void multiply_add(V& sum, const Bf16Pair& a, const Bf16Pair* b) {
  const __m512i pairs = _mm512_set1_epi32(static_cast<int>(a.bits));
  sum = (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh)_mm512_loadu_si512(b));
}
#endif

template <int kRows, class Packed>
void tile_kernel(TileSum<Packed>* c, int64_t c_row, const Packed* a, int64_t a_row, int64_t a_depth,
                 const Packed* b, int64_t depth, bool accumulate) {
  using Sum = TileSum<Packed>;
  using Vector = typename VectorOf<Sum>::type;
  using Unaligned = typename VectorOf<Sum>::unaligned;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Sum));
  Vector sums[kRows][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v)
      sums[r][v] =
          accumulate ? *reinterpret_cast<const Unaligned*>(c + r * c_row + v * kLanes) : Vector{};
  for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) multiply_add(sums[r][v], a[r * a_row], b + v * kLanes);
    a += a_depth;
    b += kPanel<Packed>;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v)
      *reinterpret_cast<Unaligned*>(c + r * c_row + v * kLanes) = sums[r][v];
}

}  // namespace detail

// Strides of A and C in their elements; `depth` in packed elements.
template <class Packed>
void tile_product(TileSum<Packed>* c, int64_t c_row, const Packed* a, int64_t a_row,
                  int64_t a_depth, const Packed* b, int64_t rows, int64_t depth, bool accumulate) {
  while (rows >= kTileRows) {
    detail::tile_kernel<kTileRows>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    c += kTileRows * c_row;
    a += kTileRows * a_row;
    rows -= kTileRows;
  }
  switch (rows) {
    case 5:
      return detail::tile_kernel<5>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    case 4:
      return detail::tile_kernel<4>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    case 3:
      return detail::tile_kernel<3>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    case 2:
      return detail::tile_kernel<2>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    case 1:
      return detail::tile_kernel<1>(c, c_row, a, a_row, a_depth, b, depth, accumulate);
    default:
      return;
  }
}

}  // namespace stmoe
