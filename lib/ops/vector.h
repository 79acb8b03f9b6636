// SPDX-License-Identifier: Apache-2.0
// Vectors as wide as the processor that the code is compiled for, for loops that the compiler does
// not vectorise by itself (reductions, register tiles). Arithmetic, comparison and ?: work element
// by element.
#pragma once

#include <bit>
#include <cstdint>

#include "lib/tensor/dtype.h"

namespace stmoe {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  // The same in memory: any alignment, any object.
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(1), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(from);
}
template <class T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(to) = value;
}
template <class T>
inline Vector<T> broadcast(T value) {
  return Vector<T>{} + value;
}

// Elements in the type of computation.
template <class T>
inline Vector<Compute<T>> load_wide(const T* from) {
  if constexpr (std::is_same_v<T, bf16>) {
    typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2), aligned(1), may_alias));
    const auto bits =
        __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Vector<uint32_t>);
    return std::bit_cast<Vector<float>>(bits << 16);
  } else {
    return load(from);
  }
}

template <class T>
inline T sum_of(Vector<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int width = kLanes<T> / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}
// Lane i: the sum over the lanes of vectors[i], of which there are kLanes<T>.
template <class T>
inline Vector<T> sums_of(Vector<T>* vectors) {
  using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  Vector<Index> even, odd;
  for (int i = 0; i < kLanes<T>; ++i) {
    even[i] = 2 * i;
    odd[i] = 2 * i + 1;
  }
#pragma GCC unroll 8
  for (int count = kLanes<T>; count > 1; count /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < count / 2; ++i)
      vectors[i] = __builtin_shuffle(vectors[2 * i], vectors[2 * i + 1], even) +
                   __builtin_shuffle(vectors[2 * i], vectors[2 * i + 1], odd);
  return vectors[0];
}
template <class T>
inline T max_of(Vector<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int width = kLanes<T> / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

}  // namespace stmoe
