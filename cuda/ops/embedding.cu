// SPDX-License-Identifier: Apache-2.0
// The gradient without atomic additions, and without frequent ids holding up the rest: positions
// are sorted by id, chunks of kChunk neighbours in that order are summed by a block each. A run of
// one id that lies within a chunk is a row of the gradient; what a chunk has of a run that goes
// beyond it is a partial sum, and the partial sums of a run are added in order. All borders are
// functions of the ids.
#include <bit>

#include "cuda/device/dropout_mask.h"
#include "cuda/device/radix_order.h"
#include "lib/ops/embedding.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kChunk = 64;

// Two vectors of y a thread, a block's width apart. Reads the table's rows and writes y: the sum of
// both types' bytes an element.
template <int V, class Y, class T>
STMOE_KERNEL gather_rows(Y* y, const T* table, const int32_t* ids, int64_t units, int64_t row_units,
                         UnitMask<Compute<Y>> mask) {
  constexpr int kHeld = 2;
  const int64_t first = block_index() * kThreads * kHeld + thread_index();
  Vector<T, V> held[kHeld];
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = first + j * kThreads;
    if (unit < units) {
      const int64_t row = quotient(unit, row_units);
      held[j] = load_vector<V>(table + (ids[row] * row_units + unit - row * row_units) * V);
    }
  }
  STMOE_UNROLL
  for (int j = 0; j < kHeld; ++j) {
    const int64_t unit = first + j * kThreads;
    if (unit < units) {
      Compute<Y> values[V];
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) values[i] = static_cast<Compute<Y>>(load_as(held[j].values[i]));
      drop_out(values, mask, unit);
      store_values(y + unit * V, values);
    }
  }
}

// (Adds to) a row's unit.
template <int V, class T>
STMOE_DEVICE void write_sum(T* row, const Compute<T> (&sum)[V], bool accumulate) {
  Compute<T> values[V] = {};
  if (accumulate) load_values(values, row);
  STMOE_UNROLL
  for (int i = 0; i < V; ++i) values[i] += sum[i];
  store_values(row, values);
}

// Ids in the order that sorts them.
struct SortedIds {
  const int32_t *ids, *order;
  int64_t count;
  STMOE_METHOD int32_t operator[](int64_t i) const { return ids[order[i]]; }
  // Whether positions i - 1 and i of the order are of one id.
  STMOE_METHOD bool continues(int64_t i) const {
    return i > 0 && i < count && (*this)[i - 1] == (*this)[i];
  }
};

// Block (chunk, part of a row): a thread has the same vector of all rows of the chunk, four of
// which it reads at a time. partial [chunks, 2, width]: what comes from a run that began before the
// chunk, and from one that begins in it and goes on. Reads dy once.
template <int V, class T, class Y>
STMOE_KERNEL sum_chunks(T* dtable, Compute<T>* partial, const Y* dy, const int32_t* ids,
                        const int32_t* order, int64_t count, int64_t row_units,
                        UnitMask<Compute<T>> mask, bool accumulate) {
  using C = Compute<T>;
  constexpr int kRead = 4;
  STMOE_SHARED(int32_t, position, kChunk);
  STMOE_SHARED(int32_t, id, kChunk);
  const SortedIds sorted = {ids, order, count};
  const int64_t begin = block_index() * kChunk;
  const int rows = static_cast<int>(count - begin < kChunk ? count - begin : kChunk);
  for (int i = thread_index(); i < rows; i += block_threads()) {
    position[i] = order[begin + i];
    id[i] = ids[order[begin + i]];
  }
  STMOE_SYNC_THREADS();
  const bool continues_before = sorted.continues(begin), goes_on = sorted.continues(begin + rows);
  const int64_t unit = block_index_y() * block_threads() + thread_index();
  if (unit < row_units) {
    C sum[V] = {};
    for (int first = 0; first < rows; first += kRead) {
      Vector<Y, V> read[kRead];
      STMOE_UNROLL
      for (int j = 0; j < kRead; ++j)
        if (first + j < rows)
          read[j] = load_vector<V>(dy + (position[first + j] * row_units + unit) * V);
      STMOE_UNROLL
      for (int j = 0; j < kRead; ++j) {
        const int row = first + j;
        if (row < rows) {
          C values[V];
          STMOE_UNROLL
          for (int i = 0; i < V; ++i) values[i] = static_cast<C>(load_as(read[j].values[i]));
          drop_out(values, mask, position[row] * row_units + unit);
          STMOE_UNROLL
          for (int i = 0; i < V; ++i) sum[i] += values[i];
          if (row + 1 == rows || id[row + 1] != id[row]) {
            const bool began_before = continues_before && id[row] == id[0];
            if (began_before || (goes_on && row + 1 == rows))
              store_values(
                  partial + ((block_index() * 2 + (began_before ? 0 : 1)) * row_units + unit) * V,
                  sum);
            else
              write_sum(dtable + (id[row] * row_units + unit) * V, sum, accumulate);
            STMOE_UNROLL
            for (int i = 0; i < V; ++i) sum[i] = 0;
          }
        }
      }
    }
  }
}

// The first place from `begin` on in the order that is not of the id at `begin`.
STMOE_DEVICE int64_t end_of_run(const SortedIds& sorted, int64_t begin) {
  const int32_t id = sorted[begin];
  int64_t last = begin, end = sorted.count;  // the id is there; it is not there
  while (end - last > 1) {
    const int64_t middle = (last + end) / 2;
    (sorted[middle] == id ? last : end) = middle;
  }
  return end;
}

// Block (chunk, part of a row) where a run begins that goes beyond the chunk; the other blocks have
// nothing to do. A warp has 32 vectors of every eighth partial sum; then the warps' are added in
// order.
template <int V, class T>
STMOE_KERNEL join_chunks(T* dtable, const Compute<T>* partial, const int32_t* ids,
                         const int32_t* order, int64_t count, int64_t row_units, bool accumulate) {
  using C = Compute<T>;
  constexpr int kWarps = kThreads / kWarp;
  STMOE_SHARED(C, warps, kThreads * V);
  const SortedIds sorted = {ids, order, count};
  const int64_t begin = block_index() * kChunk, end = begin + kChunk;
  // The chunk's last run goes on, and is not one that came from before.
  const bool is_first =
      sorted.continues(end) && !(sorted.continues(begin) && sorted[begin] == sorted[end - 1]);
  const int64_t unit = block_index_y() * kWarp + lane_index();
  C sum[V] = {};
  if (is_first && unit < row_units) {
    const int64_t chunks = (end_of_run(sorted, end) - end + kChunk - 1) / kChunk;
    for (int64_t i = warp_index(); i <= chunks; i += kWarps) {
      C values[V];
      const int64_t which = i == 0 ? block_index() * 2 + 1 : (block_index() + i) * 2;
      load_values(values, partial + (which * row_units + unit) * V);
      STMOE_UNROLL
      for (int j = 0; j < V; ++j) sum[j] += values[j];
    }
  }
  STMOE_UNROLL
  for (int j = 0; j < V; ++j) warps[j * kThreads + thread_index()] = sum[j];
  STMOE_SYNC_THREADS();
  if (is_first && warp_index() == 0 && unit < row_units) {
    for (int warp = 1; warp < kWarps; ++warp) STMOE_UNROLL
    for (int j = 0; j < V; ++j) sum[j] += warps[j * kThreads + warp * kWarp + lane_index()];
    write_sum(dtable + (sorted[end - 1] * row_units + unit) * V, sum, accumulate);
  }
}

void forward(const Tensor& y, const Tensor& table, const Tensor& ids, const DropoutMask& mask) {
  if (y.numel() == 0) return;
  visit_floating(table.dtype(), [&](auto table_tag) {
    visit_floating(y.dtype(), [&](auto y_tag) {
      using T = decltype(table_tag);
      using Y = decltype(y_tag);
      const int64_t width = table.dim(1);
      const bool in_vectors = tiles_rows(kVectorOf<Y>, width, y.data<Y>(), table.data<T>()) &&
                              tiles_mask(kVectorOf<Y>, mask);
      visit_vector<Y>(in_vectors, [&](auto v) {
        constexpr int V = decltype(v)::value;
        launch(gather_rows<V, Y, T>, blocks_for(y.numel() / V, 2 * kThreads), kThreads, 0,
               y.data<Y>(), table.data<T>(), ids.data<int32_t>(), y.numel() / V, width / V,
               unit_mask<Compute<Y>>(mask, V));
      });
    });
  });
}

template <int V, class T, class Y>
void sum_rows(const Tensor& dtable, const Tensor& dy, const Tensor& ids, const DropoutMask& mask,
              bool accumulate) {
  using C = Compute<T>;
  const int64_t count = ids.numel(), vocabulary = dtable.dim(0), width = dtable.dim(1);
  const auto* keys = reinterpret_cast<const uint32_t*>(ids.data<int32_t>());
  const Tensor order =
      radix_order(keys, count, std::bit_width(static_cast<uint64_t>(vocabulary - 1)), ids.device());
  const int64_t row_units = width / V, chunks = blocks_for(count, kChunk).x;
  const Tensor partial = Tensor::empty({chunks, 2, width}, kDTypeOf<C>, dy.device());
  const int64_t threads = std::min<int64_t>(kThreads, (row_units + kWarp - 1) / kWarp * kWarp);
  launch(sum_chunks<V, T, Y>, {chunks, blocks_for(row_units, threads).x}, static_cast<int>(threads),
         0, dtable.data<T>(), partial.data<C>(), dy.data<Y>(), ids.data<int32_t>(),
         order.data<int32_t>(), count, row_units, unit_mask<C>(mask, V), accumulate);
  launch(join_chunks<V, T>, {chunks, blocks_for(row_units, kWarp).x}, kThreads, 0, dtable.data<T>(),
         partial.data<C>(), ids.data<int32_t>(), order.data<int32_t>(), count, row_units,
         accumulate);
}

void backward(const Tensor& dtable, const Tensor& dy, const Tensor& ids, const DropoutMask& mask,
              bool accumulate) {
  if (!accumulate) dtable.fill(0);
  if (dy.numel() == 0) return;
  visit_floating(dtable.dtype(), [&](auto table_tag) {
    visit_floating(dy.dtype(), [&](auto y_tag) {
      using T = decltype(table_tag);
      using Y = decltype(y_tag);
      const bool in_vectors =
          tiles_rows(kVectorOf<Y>, dtable.dim(1), dtable.data<T>(), dy.data<Y>()) &&
          tiles_mask(kVectorOf<Y>, mask);
      visit_vector<Y>(in_vectors, [&](auto v) {
        sum_rows<decltype(v)::value, T, Y>(dtable, dy, ids, mask, accumulate);
      });
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(EmbeddingKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
