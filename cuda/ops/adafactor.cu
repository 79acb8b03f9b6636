// SPDX-License-Identifier: Apache-2.0
// Adafactor; the host reads nothing. A factored weight, in bytes of an element:
//   sum_squares     4: sums of g^2 over rows and over columns, per tile
//   finish_factors  -: the new moments; the scales of rows and columns
//   sum_scaled      4 + w: sums of u^2 and, for the scale of the weight, of w^2, per row of a tile
//   finish_slices   -: what each slice's update is multiplied by
//   update_factored 4 + 2 w (+ 8 with momentum, + 2 for the bf16 copy)
// w is 4 for weights stored as f32 or split, 2 for bf16 (cuda/device/weights.h).
// The update u = g * row_scale * column_scale is never stored. A block has a tile of up to 64 rows
// and, with 256 threads of 16 bytes, 1024 columns; a thread has the same columns of every row, so
// that their sums and scales stay in registers, and loads eight rows at once.
#include <algorithm>
#include <tuple>

#include "cuda/device/adafactor.h"
#include "cuda/device/map.h"
#include "cuda/device/tiles.h"
#include "cuda/device/warp.h"
#include "cuda/device/weights.h"
#include "lib/optim/adafactor_kernels.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;
constexpr int64_t kChunk = 8192;  // elements of a block's piece of an unfactored weight

// row_partial [batches, rows, strips], column_partial [batches, row blocks, columns].
template <int V>
STMOE_KERNEL sum_squares(float* row_partial, float* column_partial, const float* gradient,
                         Tiles t) {
  STMOE_SHARED(float, sums, kTileSums);
  const Tile tile = tile_of_block<V>(t);
  float of_columns[V] = {};
  for (int64_t first = tile.begin; first < tile.end; first += kTileGroup) {
    float g[kTileGroup][V], of_rows[kTileGroup] = {};
    load_rows(g, t, tile, first,
              [=](float(&x)[V], int64_t at) { load_values<V>(x, gradient + at); });
    STMOE_UNROLL
    for (int r = 0; r < kTileGroup; ++r) {
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        const float square = g[r][i] * g[r][i];
        of_rows[r] += square;
        of_columns[i] += square;
      }
    }
    keep_row_sums(sums, of_rows, first - tile.begin);
  }
  STMOE_SYNC_THREADS();
  write_row_sums(row_partial, sums, t, tile);
  if (tile.is_active)
    store_values(
        column_partial + (tile.batch * t.row_blocks + tile.row_block) * t.columns + tile.column,
        of_columns);
}

// The block has the rows of a batch.
STMOE_DEVICE void finish_rows(float* row, double* row_scale, const float* partial, const Tiles& t,
                              int64_t batch, float beta2, float keep2, double* shared) {
  double sum = 0;
  for (int64_t i = thread_index(); i < t.rows; i += block_threads()) {
    const int64_t at = batch * t.rows + i;
    float total = 0;
    for (int64_t strip = 0; strip < t.strips; ++strip) total += partial[at * t.strips + strip];
    row[at] = decayed(row[at], total / static_cast<float>(t.columns), beta2, keep2);
    sum += static_cast<double>(row[at]);
  }
  const double mean = block_sum(sum, shared) / static_cast<double>(t.rows);
  for (int64_t i = thread_index(); i < t.rows; i += block_threads())
    row_scale[batch * t.rows + i] = 1.0 / sqrt(static_cast<double>(row[batch * t.rows + i]) / mean);
}

// The block has 32 columns of all batches, a lane each; the warps share out the row blocks.
STMOE_DEVICE void finish_columns(float* column, float* column_scale, const float* partial,
                                 const Tiles& t, int64_t first, float beta2, float keep2,
                                 double* shared) {
  const int64_t at = first + lane_index();  // of batches * columns
  const bool is_active = at < t.batches * t.columns;
  const int64_t batch = quotient(at, t.columns), j = at - batch * t.columns;
  double sum = 0;
  if (is_active)
    for (int64_t block = warp_index(); block < t.row_blocks; block += block_warps())
      sum += static_cast<double>(partial[(batch * t.row_blocks + block) * t.columns + j]);
  shared[warp_index() * kWarp + lane_index()] = sum;
  STMOE_SYNC_THREADS();
  if (warp_index() == 0 && is_active) {
    double total = 0;
    for (int warp = 0; warp < block_warps(); ++warp) total += shared[warp * kWarp + lane_index()];
    const float mean = static_cast<float>(total / static_cast<double>(t.rows));
    column[at] = decayed(column[at], mean, beta2, keep2);
    column_scale[at] = 1.0f / sqrtf(column[at]);
  }
}

// The first `batches` blocks have rows, the others columns.
STMOE_KERNEL finish_factors(float* row, float* column, double* row_scale, float* column_scale,
                            const float* row_partial, const float* column_partial, Tiles t,
                            float beta2, float keep2) {
  STMOE_SHARED(double, shared, kFinishThreads);
  if (block_index() < t.batches)
    finish_rows(row, row_scale, row_partial, t, block_index(), beta2, keep2, shared);
  else
    finish_columns(column, column_scale, column_partial, t, (block_index() - t.batches) * kWarp,
                   beta2, keep2, shared);
}

// Sums over the tile's columns of (g column_scale)^2 and, where kHasWeights, of w^2, both [batches,
// rows, strips].
template <int V, bool kHasWeights, class W>
STMOE_KERNEL sum_scaled(float* update_partial, float* weight_partial, const float* gradient,
                        W weights, const float* column_scale, Tiles t) {
  STMOE_SHARED(float, of_updates, kTileSums);
  STMOE_SHARED(float, of_weights, kTileSums);
  const Tile tile = tile_of_block<V>(t);
  float scale[V] = {};
  if (tile.is_active) load_values<V>(scale, column_scale + tile.batch * t.columns + tile.column);
  for (int64_t first = tile.begin; first < tile.end; first += kTileGroup) {
    float g[kTileGroup][V], w[kTileGroup][V], updates[kTileGroup] = {}, squares[kTileGroup] = {};
    load_rows(g, t, tile, first,
              [=](float(&x)[V], int64_t at) { load_values<V>(x, gradient + at); });
    if constexpr (kHasWeights)
      load_rows(w, t, tile, first, [=](float(&x)[V], int64_t at) { weights.load(x, at); });
    STMOE_UNROLL
    for (int r = 0; r < kTileGroup; ++r) {
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        const float u = g[r][i] * scale[i];
        updates[r] += u * u;
        if constexpr (kHasWeights) squares[r] += w[r][i] * w[r][i];
      }
    }
    keep_row_sums(of_updates, updates, first - tile.begin);
    if constexpr (kHasWeights) keep_row_sums(of_weights, squares, first - tile.begin);
  }
  STMOE_SYNC_THREADS();
  write_row_sums(update_partial, of_updates, t, tile);
  if constexpr (kHasWeights) write_row_sums(weight_partial, of_weights, t, tile);
}

enum class SliceBy { all, batch, row };

template <int V, class W>
STMOE_KERNEL update_factored(W weights, const float* gradient, float* momentum,
                             const double* factors, const double* row_scale,
                             const float* column_scale, Tiles t, SliceBy slice_by, Decay decay) {
  constexpr int kRows = kTileGroup / 2;  // two tensors are under way
  const Tile tile = tile_of_block<V>(t);
  float scale[V] = {};
  if (tile.is_active) load_values<V>(scale, column_scale + tile.batch * t.columns + tile.column);
  for (int64_t first = tile.begin; first < tile.end; first += kRows) {
    float g[kRows][V], w[kRows][V];
    load_rows(g, t, tile, first,
              [=](float(&x)[V], int64_t at) { load_values<V>(x, gradient + at); });
    load_rows(w, t, tile, first, [=](float(&x)[V], int64_t at) { weights.load(x, at); });
    STMOE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first + r;
      if (!tile.is_active || row >= tile.end) continue;
      const double factor = factors[slice_by == SliceBy::all     ? 0
                                    : slice_by == SliceBy::batch ? tile.batch
                                                                 : row];
      const float by = static_cast<float>(factor * row_scale[tile.batch * t.rows + row]);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) g[r][i] = by * scale[i] * g[r][i];
      const int64_t at = element(t, tile, row);
      subtract(w[r], g[r], momentum ? momentum + at : nullptr, decay);
      weights.store(at, w[r]);
    }
  }
}

// A piece of up to kChunk elements of a slice that is not factored.
struct Piece {
  int64_t slice, begin, end;
};

STMOE_DEVICE Piece piece_of_block(int64_t slice_size, int64_t chunks) {
  const int64_t slice = quotient(block_index(), chunks);
  const int64_t begin = (block_index() - slice * chunks) * kChunk;
  const int64_t end = begin + kChunk < slice_size ? begin + kChunk : slice_size;
  return {slice, slice * slice_size + begin, slice * slice_size + end};
}

// The new second moments of a piece; its sums of u^2 and, where `is_scaled`, of w^2.
template <int V, class W>
STMOE_DEVICE void renew_piece(double* update, double* weight, float* second, const float* gradient,
                              const W& weights, const Piece& piece, bool is_scaled, float beta2,
                              float keep2) {
  float updates = 0, squares = 0;
  for (int64_t at = piece.begin + thread_index() * V; at < piece.end; at += block_threads() * V) {
    float g[V], v[V], w[V] = {};
    load_values<V>(g, gradient + at);
    load_values<V>(v, second + at);
    if (is_scaled) weights.load(w, at);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) {
      const float square = g[i] * g[i];
      v[i] = decayed(v[i], square, beta2, keep2);
      updates += square / v[i];
      squares += w[i] * w[i];
    }
    store_values(second + at, v);
  }
  STMOE_SHARED(double, of_updates, 32);
  STMOE_SHARED(double, of_weights, 32);
  *update = block_sum(static_cast<double>(updates), of_updates);
  *weight = block_sum(static_cast<double>(squares), of_weights);
}

template <int V, class W>
STMOE_DEVICE void apply_piece(const W& weights, const float* gradient, const float* second,
                              float* momentum, const Piece& piece, float factor,
                              const Decay& decay) {
  for (int64_t at = piece.begin + thread_index() * V; at < piece.end; at += block_threads() * V) {
    float g[V], v[V], w[V];
    load_values<V>(g, gradient + at);
    load_values<V>(v, second + at);
    weights.load(w, at);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) g[i] = factor * g[i] / sqrtf(v[i]);
    subtract(w, g, momentum ? momentum + at : nullptr, decay);
    weights.store(at, w);
  }
}

// Partial sums [slices, chunks]. 12 bytes of an element, 4 more for w.
template <int V, class W>
STMOE_KERNEL renew_second(double* update_partial, double* weight_partial, float* second,
                          const float* gradient, W weights, int64_t slice_size, int64_t chunks,
                          bool is_scaled, float beta2, float keep2) {
  double update, weight;
  renew_piece<V>(&update, &weight, second, gradient, weights, piece_of_block(slice_size, chunks),
                 is_scaled, beta2, keep2);
  if (thread_index() == 0) {
    update_partial[block_index()] = update;
    weight_partial[block_index()] = weight;
  }
}

// 16 bytes of an element, 8 more with momentum.
template <int V, class W>
STMOE_KERNEL apply_second(W weights, const float* gradient, const float* second, float* momentum,
                          const double* factors, int64_t slice_size, int64_t chunks, Decay decay) {
  const Piece piece = piece_of_block(slice_size, chunks);
  apply_piece<V>(weights, gradient, second, momentum, piece,
                 static_cast<float>(factors[piece.slice]), decay);
}

// Everything at once where a slice is one piece and needs no other one: norms' scales.
template <int V, class W>
STMOE_KERNEL update_piece(W weights, const float* gradient, float* second, float* momentum,
                          FactorRule rule, int64_t slice_size, float beta2, float keep2,
                          Decay decay) {
  const Piece piece = piece_of_block(slice_size, 1);
  double update, weight;
  renew_piece<V>(&update, &weight, second, gradient, weights, piece, rule.is_scaled, beta2, keep2);
  const double factor = factor_of(rule, update, rule.slice_size, weight, rule.slice_size);
  apply_piece<V>(weights, gradient, second, momentum, piece, static_cast<float>(factor), decay);
}

// One update's launches; W: how the weights are stored.
template <class W>
struct Launches {
  const AdafactorUpdate& u;
  const AdafactorRule& given;
  W weights;
  FactorRule rule;
  Decay decay;
  float beta2, keep2;

  Tensor doubles(int64_t count) const {
    return Tensor::empty({count}, DType::f64, u.gradient.device());
  }
  Tensor floats(int64_t count) const {
    return Tensor::empty({count}, DType::f32, u.gradient.device());
  }
  float* momentum() const { return given.beta1 > 0 ? u.momentum.data<float>() : nullptr; }
  bool is_separable() const {
    return rule.slices == 1 || (rule.clips_slices && rule.scales_slices);
  }

  template <class P>
  Tensor finish(const P* update_partial, const P* weight_partial, const SlicePart& part) const {
    const Tensor factors = doubles(rule.slices), updates = doubles(rule.slices),
                 squares = doubles(rule.slices);
    launch(finish_slices<P>, {rule.slices}, kFinishThreads, 0, factors.data<double>(),
           updates.data<double>(), squares.data<double>(), update_partial, weight_partial, part,
           rule);
    if (!is_separable())
      launch(finish_stack, {1}, kThreads, 0, factors.data<double>(), updates.data<double>(),
             squares.data<double>(), rule);
    return factors;
  }

  template <int V>
  void factored() const {
    const Factoring& f = *u.factoring;
    int threads = 0;
    Tiles t = tiles_of(f.batches, f.rows, f.columns, V, &threads);
    t.batch_stride = f.batch_stride;
    t.row_stride = f.row_stride;
    t.column_stride = f.column_stride;
    const float* gradient = u.gradient.data<float>();
    const int64_t rows = t.batches * t.rows, columns = t.batches * t.columns;
    const Tensor row_partial = floats(rows * t.strips), row_scale = doubles(rows);
    const Tensor column_partial = floats(columns * t.row_blocks), column_scale = floats(columns);
    launch(sum_squares<V>, {t.count()}, threads, 0, row_partial.data<float>(),
           column_partial.data<float>(), gradient, t);
    launch(finish_factors, {t.batches + (columns + kWarp - 1) / kWarp}, kFinishThreads, 0,
           u.row.data<float>(), u.column.data<float>(), row_scale.data<double>(),
           column_scale.data<float>(), row_partial.data<float>(), column_partial.data<float>(), t,
           beta2, keep2);
    const Tensor weight_partial = floats(rule.is_scaled ? rows * t.strips : 1);
    launch(rule.is_scaled ? sum_scaled<V, true, W> : sum_scaled<V, false, W>, {t.count()}, threads,
           0, row_partial.data<float>(), weight_partial.data<float>(), gradient, weights,
           column_scale.data<float>(), t);
    // Slices are the leading dimension, which is the batch or the row.
    const SliceBy by = rule.slices == 1                                            ? SliceBy::all
                       : f.batches == rule.slices && f.batch_stride > f.row_stride ? SliceBy::batch
                                                                                   : SliceBy::row;
    STMOE_CHECK(by != SliceBy::row || f.rows == rule.slices, "adafactor: {} slices, {} rows",
                rule.slices, f.rows);
    const SlicePart part = by == SliceBy::row
                               ? SlicePart{f.batches, 1, f.rows, t.strips, row_scale.data<double>()}
                               : SlicePart{rows / rule.slices, rows / rule.slices, 1, t.strips,
                                           row_scale.data<double>()};
    const Tensor factors = finish(row_partial.data<float>(), weight_partial.data<float>(), part);
    launch(update_factored<V, W>, {t.count()}, threads, 0, weights, gradient, momentum(),
           factors.data<double>(), row_scale.data<double>(), column_scale.data<float>(), t, by,
           decay);
  }

  template <int V>
  void unfactored() const {
    const int64_t size = u.gradient.numel() / rule.slices, chunks = (size + kChunk - 1) / kChunk;
    const Grid grid{rule.slices * chunks};
    const float* gradient = u.gradient.data<float>();
    float* second = u.second.data<float>();
    if (chunks == 1 && is_separable())
      return launch(update_piece<V, W>, grid, kThreads, 0, weights, gradient, second, momentum(),
                    rule, size, beta2, keep2, decay);
    const Tensor update_partial = doubles(grid.x), weight_partial = doubles(grid.x);
    launch(renew_second<V, W>, grid, kThreads, 0, update_partial.data<double>(),
           weight_partial.data<double>(), second, gradient, weights, size, chunks, rule.is_scaled,
           beta2, keep2);
    const Tensor factors = finish(update_partial.data<double>(), weight_partial.data<double>(),
                                  SlicePart{chunks, chunks, 1, 1, nullptr});
    launch(apply_second<V, W>, grid, kThreads, 0, weights, gradient, second, momentum(),
           factors.data<double>(), size, chunks, decay);
  }
};

// Whether rows of vectors of four elements are aligned in everything that is read or written.
bool is_in_vectors(const AdafactorUpdate& u) {
  const Factoring& f = *u.factoring;
  const int64_t row = f.is_factored() ? f.columns : u.gradient.numel() / u.num_slices;
  if (f.is_factored() && (f.column_stride != 1 || f.row_stride % 4 != 0 || f.batch_stride % 4 != 0))
    return false;
  return tiles_weights(u.weight, row) &&
         tiles_rows(4, row, u.gradient.raw(), u.column.raw(), u.second.raw(), u.momentum.raw());
}

void update(const AdafactorUpdate& u, const AdafactorRule& given) {
  if (u.gradient.numel() == 0) return;
  const FactorRule rule{u.learning_rate,     given.clipping_threshold,
                        given.minimum_scale, static_cast<double>(u.gradient.numel() / u.num_slices),
                        u.num_slices,        given.multiply_by_parameter_scale,
                        given.clips_experts, given.scales_experts};
  const Decay decay{static_cast<float>(1.0 - given.weight_decay), static_cast<float>(given.beta1),
                    static_cast<float>(1.0 - given.beta1)};
  const auto beta2 = static_cast<float>(u.beta2), keep2 = static_cast<float>(1.0 - u.beta2);
  visit_weights(u.weight, [&](auto weights) {
    using W = decltype(weights);
    const Launches<W> launches{u, given, weights, rule, decay, beta2, keep2};
    visit_vector<float>(is_in_vectors(u), [&](auto v) {
      constexpr int V = decltype(v)::value;
      u.factoring->is_factored() ? launches.template factored<V>()
                                 : launches.template unfactored<V>();
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AdafactorKernels, STMOE_GPU, {gpu::update})

}  // namespace stmoe
