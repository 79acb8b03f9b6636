// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels: F says what is computed of the elements of up to three tensors, which one
// or two results take; the kernels how they are read and written. F has kInputs, kOutputs and a
// device function
//   template <class C> void of(C* y, const C* x)   y[0], ... of x[0], ...
// A result may be an input: element i depends on elements i only.
#pragma once

#include "cuda/device/dropout_mask.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/hidden_mask.h"

namespace stmoe::gpu {

inline constexpr int kMapThreads = 256;

struct SumOfTwo {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = x[0] + x[1];
  }
};

template <class T>
struct MapResults {
  T *y0, *y1 = nullptr;
};
template <class T>
struct MapInputs {
  const T *x0 = nullptr, *x1 = nullptr, *x2 = nullptr;
};

// Vectors that a thread holds at a time: about 64 bytes are on their way.
template <class F>
inline constexpr int kMapVectors = F::kInputs == 1 ? 4 : 2;

template <int V, class F, class T>
STMOE_DEVICE void load_inputs(Vector<T, V> (&to)[F::kInputs], const T* x0, const T* x1, const T* x2,
                              int64_t at) {
  const T* from[] = {x0, x1, x2};
  STMOE_UNROLL
  for (int k = 0; k < F::kInputs; ++k) to[k] = load_vector<V>(from[k] + at);
}

template <int V, class F, class T>
STMOE_DEVICE void compute_outputs(Compute<T> (&y)[F::kOutputs][V],
                                  const Vector<T, V> (&inputs)[F::kInputs], const F& f) {
  using C = Compute<T>;
  STMOE_UNROLL
  for (int i = 0; i < V; ++i) {
    C in[F::kInputs], out[F::kOutputs];
    STMOE_UNROLL
    for (int k = 0; k < F::kInputs; ++k) in[k] = load_as(inputs[k].values[i]);
    f.of(out, in);
    STMOE_UNROLL
    for (int k = 0; k < F::kOutputs; ++k) y[k][i] = out[k];
  }
}

// A thread has kMapVectors vectors, a block's width apart from each other: what a warp reads or
// writes at once are whole lines. Each tensor is read or written once.
template <int V, class F, class T>
STMOE_KERNEL map_kernel(T* y0, T* y1, const T* x0, const T* x1, const T* x2, int64_t units, F f) {
  constexpr int kHeld = kMapVectors<F>;
  const int64_t first = block_index() * block_threads() * kHeld + thread_index();
  Vector<T, V> inputs[kHeld][F::kInputs];
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = first + j * block_threads();
    if (unit < units) load_inputs<V, F>(inputs[j], x0, x1, x2, unit * V);
  }
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = first + j * block_threads();
    if (unit < units) {
      Compute<T> y[F::kOutputs][V];
      compute_outputs<V, F, T>(y, inputs[j], f);
      store_values(y0 + unit * V, y[0]);
      if constexpr (F::kOutputs > 1) store_values(y1 + unit * V, y[1]);
    }
  }
}

// The same in rows of `row_units` units with a HiddenMask: the results are dropped out, those of
// rows that row_R calls unused are zeros, and their inputs are not read. row_R may be null.
template <int V, class F, class T>
STMOE_KERNEL map_hidden_kernel(T* y0, T* y1, const T* x0, const T* x1, const T* x2, int64_t units,
                               F f, const int32_t* row_R, int64_t row_units,
                               UnitMask<Compute<T>> mask) {
  constexpr int kHeld = kMapVectors<F>;
  const int64_t first = block_index() * block_threads() * kHeld + thread_index();
  Vector<T, V> inputs[kHeld][F::kInputs];
  int64_t drawn[kHeld];  // the unit whose mask this one has, below 0 in an unused row
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = drawn[j] = first + j * block_threads();
    if (unit >= units) continue;
    if (row_R) {
      const int64_t row = quotient(unit, row_units);
      drawn[j] = row_R[row] < 0 ? -1 : row_R[row] * row_units + (unit - row * row_units);
    }
    if (drawn[j] >= 0) load_inputs<V, F>(inputs[j], x0, x1, x2, unit * V);
  }
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = first + j * block_threads();
    if (unit >= units) continue;
    Compute<T> y[F::kOutputs][V] = {};
    if (drawn[j] >= 0) {
      compute_outputs<V, F, T>(y, inputs[j], f);
      STMOE_UNROLL
      for (int k = 0; k < F::kOutputs; ++k) drop_out(y[k], mask, drawn[j]);
    }
    store_values(y0 + unit * V, y[0]);
    if constexpr (F::kOutputs > 1) store_values(y1 + unit * V, y[1]);
  }
}

template <class F>
Grid map_grid(int64_t units) {
  return blocks_for(units, int64_t{kMapThreads} * kMapVectors<F>);
}

// y = f(x, ...) for `count` elements.
template <class F, class T>
void map_elements(const MapResults<T>& y, const MapInputs<T>& x, int64_t count, const F& f) {
  visit_vector<T>(tiles_rows(kVectorOf<T>, count, y.y0, y.y1, x.x0, x.x1, x.x2), [&](auto v) {
    constexpr int V = decltype(v)::value;
    launch(map_kernel<V, F, T>, map_grid<F>(count / V), kMapThreads, 0, y.y0, y.y1, x.x0, x.x1,
           x.x2, count / V, f);
  });
}

// y = mask of f(x, ...), 0 in unused rows.
template <class F, class T>
void map_hidden(const MapResults<T>& y, const MapInputs<T>& x, const HiddenMask& hidden,
                const F& f) {
  if (hidden.rows * hidden.width == 0) return;
  if (!hidden.mask.is_on() && !hidden.row_R.defined())
    return map_elements(y, x, hidden.rows * hidden.width, f);
  const bool in_vectors = tiles_rows(kVectorOf<T>, hidden.width, y.y0, y.y1, x.x0, x.x1, x.x2) &&
                          tiles_mask(kVectorOf<T>, hidden.mask);
  visit_vector<T>(in_vectors, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const int64_t row_units = hidden.width / V, units = hidden.rows * row_units;
    launch(map_hidden_kernel<V, F, T>, map_grid<F>(units), kMapThreads, 0, y.y0, y.y1, x.x0, x.x1,
           x.x2, units, f, hidden.row_R.defined() ? hidden.row_R.data<int32_t>() : nullptr,
           row_units, unit_mask<Compute<T>>(hidden.mask, V));
  });
}

}  // namespace stmoe::gpu
