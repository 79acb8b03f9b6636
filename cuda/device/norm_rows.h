// SPDX-License-Identifier: Apache-2.0
// RMS norm of rows, with the residual sum before it (lib/ops/residual_norm.h; formulas in
// lib/ops/cpu/norm_rows.h). A block has a row, or several one after the other; a thread the same
// columns of each: kHeld vectors a block's width apart, which stay in registers between the pass
// that sums up and the one that writes. kHeld 0: rows too long for that, or whose width is no
// multiple of a vector, are read a second time.
#pragma once

#include <algorithm>

#include "cuda/device/column_sums.h"
#include "cuda/device/dropout_mask.h"
#include "cuda/device/math.h"

namespace stmoe::gpu {

// At most 256 threads, so that any number of registers fits.
inline constexpr int kNormThreads = 256, kNormMostHeld = 4;

// f(k, unit) for the calling thread's units of a row; k is a constant where they are held.
template <int kHeld, class F>
STMOE_DEVICE void for_row_units(int row_units, F&& f) {
  if constexpr (kHeld > 0) {
    STMOE_UNROLL
    for (int k = 0; k < kHeld; ++k) {
      const int unit = k * block_threads() + thread_index();
      if (unit < row_units) f(k, unit);
    }
  } else {
    for (int unit = thread_index(); unit < row_units; unit += block_threads()) f(0, unit);
  }
}
inline constexpr int held_or_one(int held) { return std::max(1, held); }

// One row a block. Without a branch the sum is x, and not written. Reads x and branch once, writes
// sum and y: 4 b an element, b the type's bytes; scale comes from the cache.
template <class T, int V, int kHeld>
STMOE_KERNEL norm_rows_kernel(T* sum, T* y, Compute<T>* rstd, const T* x, const T* branch,
                              const Compute<T>* scale, int row_units, Compute<T> eps,
                              UnitMask<Compute<T>> mask) {
  using C = Compute<T>;
  STMOE_SHARED(C, partial, kWarp);
  const int64_t row = block_index(), first = row * row_units;
  Vector<T, V> held[held_or_one(kHeld)];
  C squares = 0;
  for_row_units<kHeld>(row_units, [&](int k, int unit) {
    const int64_t at = (first + unit) * V;
    held[k] = load_vector<V>(x + at);
    C values[V];
    unpack(values, held[k]);
    if (branch) {
      C more[V];
      load_values(more, branch + at);
      drop_out(more, mask, first + unit);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) more[i] += values[i];
      pack(held[k], more);
      store_vector(sum + at, held[k]);
      unpack(values, held[k]);  // the norm is that of the rounded sum
    }
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) squares += values[i] * values[i];
  });
  const C mean = block_sum(squares, partial) / static_cast<C>(row_units * V);
  const C r = reciprocal_root(mean + eps);
  if (thread_index() == 0) rstd[row] = r;
  for_row_units<kHeld>(row_units, [&](int k, int unit) {
    const int64_t at = (first + unit) * V;
    if constexpr (kHeld == 0) held[k] = load_vector<V>((branch ? sum : x) + at);
    C values[V], scales[V];
    unpack(values, held[k]);
    load_values(scales, scale + unit * V);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) values[i] *= r * scales[i];
    store_values(y + at, values);
  });
}

// What a block's rows add to dscale: in registers, or in the block's row of `partial`, where every
// column is one thread's.
template <int V, int kHeld, class C>
struct ScaleGradient {
  C sums[held_or_one(kHeld)][V] = {};

  STMOE_METHOD void add(C* partial, int k, int unit, const C (&terms)[V]) {
    if constexpr (kHeld > 0) {
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) sums[k][i] += terms[i];
    } else {
      for (int i = 0; i < V; ++i) partial[unit * V + i] += terms[i];
    }
  }
};

// What a thread has of a row in the backward pass; extra may be null.
template <class T, int V, int kHeld>
struct NormOperands {
  Vector<T, V> dy[held_or_one(kHeld)], x[held_or_one(kHeld)], extra[held_or_one(kHeld)];

  STMOE_METHOD void read(int k, const T* all_dy, const T* all_x, const T* all_extra, int64_t at) {
    dy[k] = load_vector<V>(all_dy + at);
    x[k] = load_vector<V>(all_x + at);
    if (all_extra) extra[k] = load_vector<V>(all_extra + at);
  }
};

// dx = r g - x r^3 mean(g x) + extra with g = dy scale, dbranch = dropout(dx); partial[block] =
// the sum over the block's rows of dy x r. extra and dbranch may be null, and dx and dbranch may be
// dy or extra. Reads dy, x, extra, writes dx and dbranch: 5 b an element at most. Where a row is
// one vector a thread, the next row is on its way while the block adds up this one.
template <class T, int V, int kHeld>
STMOE_KERNEL norm_rows_backward_kernel(T* dx, T* dbranch, Compute<T>* partial, const T* extra,
                                       const T* dy, const T* x, const Compute<T>* scale,
                                       const Compute<T>* rstd, int64_t rows, int64_t rows_per_block,
                                       int row_units, UnitMask<Compute<T>> mask) {
  using C = Compute<T>;
  constexpr bool kReadsAhead = kHeld == 1;
  STMOE_SHARED(C, shared, 2 * kWarp);
  ScaleGradient<V, kHeld, C> dscale;
  C* const mine = partial + block_index() * row_units * V;
  if constexpr (kHeld == 0)
    for_row_units<kHeld>(row_units, [&](int, int unit) {
      for (int i = 0; i < V; ++i) mine[unit * V + i] = 0;
    });
  const int64_t first_row = block_index() * rows_per_block;
  const int64_t last_row = first_row + rows_per_block < rows ? first_row + rows_per_block : rows;
  NormOperands<T, V, kHeld> now, next;
  const auto read = [&](NormOperands<T, V, kHeld>& into, int64_t row) {
    if (row < last_row)
      for_row_units<kHeld>(row_units, [&](int k, int unit) {
        into.read(k, dy, x, extra, (row * row_units + unit) * V);
      });
  };
  if constexpr (kReadsAhead) read(next, first_row);
  for (int64_t row = first_row; row < last_row; ++row) {
    const int64_t first = row * row_units;
    const C r = rstd[row];
    if constexpr (kReadsAhead) {
      now = next;
      read(next, row + 1);
    } else if constexpr (kHeld > 0) {
      read(now, row);
    }
    C dot = 0;
    for_row_units<kHeld>(row_units, [&](int k, int unit) {
      if constexpr (kHeld == 0) now.read(k, dy, x, nullptr, (first + unit) * V);
      C scales[V];
      load_values(scales, scale + unit * V);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i)
        dot += load_as(now.dy[k].values[i]) * scales[i] * load_as(now.x[k].values[i]);
    });
    dot = block_sum(dot, shared + (row - first_row) % 2 * kWarp);
    const C c = dot * r * r * r / static_cast<C>(row_units * V);
    for_row_units<kHeld>(row_units, [&](int k, int unit) {
      const int64_t at = (first + unit) * V;
      if constexpr (kHeld == 0) now.read(k, dy, x, extra, at);
      C scales[V], terms[V], result[V];
      load_values(scales, scale + unit * V);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        const C gradient = load_as(now.dy[k].values[i]), value = load_as(now.x[k].values[i]);
        terms[i] = gradient * value * r;
        result[i] = gradient * scales[i] * r - value * c;
        if (extra) result[i] += load_as(now.extra[k].values[i]);
      }
      dscale.add(mine, k, unit, terms);
      Vector<T, V> rounded;
      pack(rounded, result);
      store_vector(dx + at, rounded);
      if (dbranch) {
        unpack(result, rounded);
        drop_out(result, mask, first + unit);
        store_values(dbranch + at, result);
      }
    });
  }
  if constexpr (kHeld > 0)
    for_row_units<kHeld>(row_units,
                         [&](int k, int unit) { store_values(mine + unit * V, dscale.sums[k]); });
}

// Host: calls f(V, kHeld) as integral constants, and with the number of threads.
template <class T, class F>
void visit_norm(int64_t width, bool in_vectors, F&& f) {
  constexpr int kVector = kVectorOf<T>;
  const int64_t units = width / (in_vectors ? kVector : 1);
  const auto threads = [&](int held) {
    const int64_t each = (units + held - 1) / held;
    return static_cast<int>(std::min<int64_t>(kNormThreads, (each + kWarp - 1) / kWarp * kWarp));
  };
  const auto call = [&](auto v, auto held) { f(v, held, threads(held_or_one(held))); };
  using std::integral_constant;
  if (!in_vectors || units > kNormThreads * kNormMostHeld)
    return visit_vector<T>(in_vectors, [&](auto v) { call(v, integral_constant<int, 0>{}); });
  const integral_constant<int, kVector> v{};
  if (units <= kNormThreads) return call(v, integral_constant<int, 1>{});
  if (units <= 2 * kNormThreads) return call(v, integral_constant<int, 2>{});
  call(v, integral_constant<int, kNormMostHeld>{});
}

template <class T>
struct NormForward {
  using C = Compute<T>;
  T *sum, *y;
  C* rstd;
  const T *x, *branch;
  const C* scale;
  double eps;
  DropoutMask mask;
};

template <class T>
void norm_rows(const NormForward<T>& task, int64_t rows, int64_t width) {
  using C = Compute<T>;
  const bool in_vectors =
      tiles_rows(kVectorOf<T>, width, task.sum, task.y, task.x, task.branch, task.scale) &&
      tiles_mask(kVectorOf<T>, task.mask);
  visit_norm<T>(width, in_vectors, [&](auto v, auto held, int threads) {
    constexpr int V = decltype(v)::value, kHeld = decltype(held)::value;
    launch(norm_rows_kernel<T, V, kHeld>, {rows}, threads, 0, task.sum, task.y, task.rstd, task.x,
           task.branch, task.scale, width / V, task.eps, unit_mask<C>(task.mask, V));
  });
}

template <class T>
struct NormBackward {
  using C = Compute<T>;
  T *dx, *dbranch;
  C* dscale;
  const T *extra, *dy, *x;
  const C *scale, *rstd;
  DropoutMask mask;
};

// Blocks of rows that have a partial sum of dscale each: many small ones fill the device, but are
// read again. A function of the number of rows alone.
inline int64_t norm_rows_per_block(int64_t rows) {
  constexpr int64_t kLeast = 4, kMostBlocks = 924;  // 7 for each of an H200's multiprocessors
  return std::max(kLeast, (rows + kMostBlocks - 1) / kMostBlocks);
}

template <class T>
void norm_rows_backward(const NormBackward<T>& task, int64_t rows, int64_t width, Device device) {
  using C = Compute<T>;
  const int64_t each = norm_rows_per_block(rows), blocks = blocks_for(rows, each).x;
  const Tensor partial = Tensor::empty({blocks, width}, kDTypeOf<C>, device);
  C* sums = partial.data<C>();
  const bool in_vectors = tiles_rows(kVectorOf<T>, width, task.dx, task.dbranch, task.extra,
                                     task.dy, task.x, task.scale, sums) &&
                          tiles_mask(kVectorOf<T>, task.mask);
  visit_norm<T>(width, in_vectors, [&](auto v, auto held, int threads) {
    constexpr int V = decltype(v)::value, kHeld = decltype(held)::value;
    launch(norm_rows_backward_kernel<T, V, kHeld>, {blocks}, threads, 0, task.dx, task.dbranch,
           sums, task.extra, task.dy, task.x, task.scale, task.rstd, rows, each, width / V,
           unit_mask<C>(task.mask, V));
  });
  sum_columns(task.dscale, sums, 1, blocks, width);
}

}  // namespace stmoe::gpu
