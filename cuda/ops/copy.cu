// SPDX-License-Identifier: Apache-2.0
// Copies between views of any strides and element types, and fills. A thread has vectors of sixteen
// bytes of the narrower type where rows of both views are made of them, else single elements; two
// of them, a block's width apart, so that what a warp reads or writes at once are whole lines. Each
// dimension of a strided view costs a division a vector.
#include "cuda/device/vector.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/copy.h"
#include "lib/tensor/cpu/convert.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kHeld = 2, kMostDims = 5;

// A view's dimensions in vectors, outermost first, with strides in elements; 0 dimensions:
// contiguous.
struct Strides {
  int rank = 0;
  int64_t size[kMostDims] = {}, to[kMostDims] = {}, from[kMostDims] = {};
};

template <class To, class From>
STMOE_DEVICE void convert(To& to, const From& from) {
  if constexpr (std::is_same_v<To, From>)
    to = from;
  else if constexpr (std::is_same_v<From, bf16>)
    convert(to, load_as(from));
  else if constexpr (std::is_same_v<To, bf16>)
    store_as(to, static_cast<float>(from));
  else
    to = static_cast<To>(from);
}

// First elements of a vector in both views.
struct Places {
  int64_t to, from;
};
template <int V>
STMOE_DEVICE Places places_of(int64_t unit, const Strides& strides) {
  if (strides.rank == 0) return {unit * V, unit * V};
  Places places = {0, 0};
  STMOE_UNROLL
  for (int d = kMostDims - 1; d >= 0; --d)
    if (d < strides.rank) {
      const int64_t rest = quotient(unit, strides.size[d]), place = unit - rest * strides.size[d];
      places.to += place * strides.to[d];
      places.from += place * strides.from[d];
      unit = rest;
    }
  return places;
}

// Reads and writes each element once.
template <int V, class To, class From>
STMOE_KERNEL copy_vectors(To* to, const From* from, int64_t units, Strides strides) {
  const int64_t first = block_index() * kThreads * kHeld + thread_index();
  Places places[kHeld];
  Vector<From, V> read[kHeld];
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j)
    if (first + j * kThreads < units) {
      places[j] = places_of<V>(first + j * kThreads, strides);
      read[j] = load_vector<V>(from + places[j].from);
    }
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j)
    if (first + j * kThreads < units) {
      Vector<To, V> written;
      if constexpr (std::is_same_v<To, bf16> && std::is_same_v<From, float>) {
        pack(written, read[j].values);
      } else {
        STMOE_UNROLL
        for (int i = 0; i < V; ++i) convert(written.values[i], read[j].values[i]);
      }
      store_vector(to + places[j].to, written);
    }
}

template <int V, class T>
STMOE_KERNEL fill_vectors(T* to, int64_t units, T value) {
  const int64_t first = block_index() * kThreads * kHeld + thread_index();
  Vector<T, V> vector;
  STMOE_UNROLL
  for (int i = 0; i < V; ++i) vector.values[i] = value;
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j)
    if (first + j * kThreads < units) store_vector(to + (first + j * kThreads) * V, vector);
}

bool both_contiguous(const Tensor& a, const Tensor& b) {
  return a.is_contiguous() && b.is_contiguous();
}

// Whether rows of V elements tile the view.
bool is_tiled(const Tensor& view, int V) {
  if (reinterpret_cast<uintptr_t>(view.raw()) % 16 != 0) return false;
  for (int d = 0; d + 1 < view.rank(); ++d)
    if (view.stride(d) % V != 0) return false;
  return view.rank() > 0 && view.stride(-1) == 1 && view.dim(-1) % V == 0;
}
bool tiles_copy(const Tensor& to, const Tensor& from, int V) {
  if (both_contiguous(to, from)) return tiles_rows(V, to.numel(), to.raw(), from.raw());
  return is_tiled(to, V) && is_tiled(from, V);
}

Strides strides_of(const Tensor& to, const Tensor& from, int V) {
  Strides strides;
  if (both_contiguous(to, from)) return strides;
  STMOE_CHECK(to.rank() <= kMostDims, "copy: {} dimensions", to.rank());
  strides.rank = to.rank();
  for (int d = 0; d < to.rank(); ++d) {
    const bool is_last = d + 1 == to.rank();
    strides.size[d] = to.dim(d) / (is_last ? V : 1);
    strides.to[d] = to.stride(d) * (is_last ? V : 1);
    strides.from[d] = from.stride(d) * (is_last ? V : 1);
  }
  return strides;
}

// Elements of a vector: sixteen bytes of the narrower type; 1 for the unusual pairs of types.
template <class To, class From>
constexpr int kCopied = kDTypeOf<To> == kDTypeOf<From> ||
                                (kDTypeOf<To> <= DType::bf16 && kDTypeOf<From> <= DType::bf16)
                            ? std::max(kVectorOf<To>, kVectorOf<From>)
                            : 1;

void copy(const Tensor& to, const Tensor& from) {
  visit_any(to.dtype(), [&](auto to_tag) {
    using To = decltype(to_tag);
    visit_any(from.dtype(), [&](auto from_tag) {
      using From = decltype(from_tag);
      const auto run = [&](auto v) {
        constexpr int V = decltype(v)::value;
        launch(copy_vectors<V, To, From>, blocks_for(to.numel() / V, kThreads * kHeld), kThreads, 0,
               to.data<To>(), from.data<From>(), to.numel() / V, strides_of(to, from, V));
      };
      constexpr int V = kCopied<To, From>;
      if (tiles_copy(to, from, V))
        run(std::integral_constant<int, V>{});
      else
        run(std::integral_constant<int, 1>{});
    });
  });
}

void fill(const Tensor& to, double value) {
  visit_any(to.dtype(), [&](auto tag) {
    using T = decltype(tag);
    visit_vector<T>(tiles_rows(kVectorOf<T>, to.numel(), to.raw()), [&](auto v) {
      constexpr int V = decltype(v)::value;
      launch(fill_vectors<V, T>, blocks_for(to.numel() / V, kThreads * kHeld), kThreads, 0,
             to.data<T>(), to.numel() / V, static_cast<T>(value));
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(CopyKernels, STMOE_GPU, {gpu::copy, gpu::fill})

}  // namespace stmoe
