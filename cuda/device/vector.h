// SPDX-License-Identifier: Apache-2.0
// Neighbouring elements at once: kVectorOf<T> of them are sixteen bytes, 1 is the path for whatever
// does not come in sixteens.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/device/device.h"

namespace stmoe::gpu {

// Elements in sixteen bytes.
template <class T>
inline constexpr int kVectorOf = 16 / static_cast<int>(sizeof(T));

// As they lie in memory. More than sixteen bytes are several accesses.
template <class T, int V>
struct alignas(std::min<size_t>(16, V * sizeof(T))) Vector {
  T values[V];
};

// `from` is aligned to 16 bytes, or to the vector when that is less.
template <int V, class T>
STMOE_DEVICE Vector<T, V> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, V>*>(from);
}
template <int V, class T>
STMOE_DEVICE void store_vector(T* to, const Vector<T, V>& vector) {
  *reinterpret_cast<Vector<T, V>*>(to) = vector;
}

// As numbers to compute with.
template <class T, int V>
STMOE_DEVICE void unpack(Compute<T> (&to)[V], const Vector<T, V>& from) {
  STMOE_UNROLL
  for (int i = 0; i < V; ++i) to[i] = load_as(from.values[i]);
}
template <int V, class T>
STMOE_DEVICE void load_values(Compute<T> (&to)[V], const T* from) {
  unpack(to, load_vector<V>(from));
}
// Rounds them to the element type.
template <class T, int V>
STMOE_DEVICE void pack(Vector<T, V>& to, const Compute<T> (&values)[V]) {
  if constexpr (std::is_same_v<T, bf16> && V % 2 == 0) {
    STMOE_UNROLL
    for (int i = 0; i < V; i += 2)
      store_two(to.values[i], to.values[i + 1], values[i], values[i + 1]);
  } else {
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) store_as(to.values[i], values[i]);
  }
}
template <int V, class T>
STMOE_DEVICE void store_values(T* to, const Compute<T> (&values)[V]) {
  Vector<T, V> vector;
  pack(vector, values);
  store_vector(to, vector);
}

// Host: whether vectors of V elements tile rows of `width` elements that start at these addresses
// (null: no such rows).
template <class... Pointers>
bool tiles_rows(int V, int64_t width, Pointers... pointers) {
  return width % V == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Host: calls f(T{}) for an element type that is f32 or f64, as statistics and losses are.
template <class F>
void visit_wide(DType dtype, F&& f) {
  STMOE_CHECK(dtype == DType::f32 || dtype == DType::f64, "elements are neither f32 nor f64");
  if (dtype == DType::f64)
    f(double{});
  else
    f(float{});
}

// Host: calls f with V as an integral constant: sixteen bytes of T, or 1.
template <class T, class F>
void visit_vector(bool in_vectors, F&& f) {
  if (in_vectors)
    f(std::integral_constant<int, kVectorOf<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

// Quotients of counts: 64-bit division only where a number needs it.
STMOE_DEVICE int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

}  // namespace stmoe::gpu
