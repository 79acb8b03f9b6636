// SPDX-License-Identifier: Apache-2.0
// Strided matrices in tiles, for sums over rows and over columns in one reading. A block has a tile
// of up to kTileRows rows and as many columns as its threads have in V each; a thread has the same
// columns of every row of the tile, so that what belongs to columns stays in registers.
#pragma once

#include <algorithm>

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"

namespace stmoe::gpu {

inline constexpr int kTileThreads = 256, kTileRows = 64;
inline constexpr int kTileGroup = 8;  // rows that are summed together
inline constexpr int kTileSums = kTileRows * (kTileThreads / kWarp);

// Element (b, i, j) is at b * batch_stride + i * row_stride + j * column_stride.
struct Tiles {
  int64_t batches, rows, columns, batch_stride, row_stride, column_stride;
  int64_t strips, row_blocks;  // tiles along a row, along a column
  int64_t block_rows;
  int64_t count() const { return batches * row_blocks * strips; }
};

// The tile of this block, and this thread's columns in it.
struct Tile {
  int64_t batch, strip, row_block, begin, end, column;
  bool is_active;  // there are such columns
};

template <int V>
STMOE_DEVICE Tile tile_of_block(const Tiles& t) {
  Tile tile;
  const int64_t rest = quotient(block_index(), t.strips);
  tile.strip = block_index() - rest * t.strips;
  tile.batch = quotient(rest, t.row_blocks);
  tile.row_block = rest - tile.batch * t.row_blocks;
  tile.begin = tile.row_block * t.block_rows;
  tile.end = tile.begin + t.block_rows < t.rows ? tile.begin + t.block_rows : t.rows;
  tile.column = (tile.strip * block_threads() + thread_index()) * V;
  tile.is_active = tile.column < t.columns;
  return tile;
}

// Where the thread's columns of a row are.
STMOE_DEVICE int64_t element(const Tiles& t, const Tile& tile, int64_t row) {
  return tile.batch * t.batch_stride + row * t.row_stride + tile.column * t.column_stride;
}

// N rows from `first` on; zeros beyond the tile. `load(x, at)` fetches V elements.
template <int N, int V, class Load>
STMOE_DEVICE void load_rows(float (&x)[N][V], const Tiles& t, const Tile& tile, int64_t first,
                            Load load) {
  STMOE_UNROLL
  for (int r = 0; r < N; ++r) {
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) x[r][i] = 0;
    if (tile.is_active && first + r < tile.end) load(x[r], element(t, tile, first + r));
  }
}

// The sums over the warp of eight values at once, in nine shuffles: lane l gets the sum of
// values[l / 4].
STMOE_DEVICE float warp_sums(float (&values)[kTileGroup]) {
  int left = kTileGroup / 2;
  STMOE_UNROLL
  for (int mask = 16; mask >= 4; mask /= 2, left /= 2) {
    const bool is_upper = (lane_index() & mask) != 0;
    STMOE_UNROLL
    for (int i = 0; i < kTileGroup / 2; ++i) {
      if (i >= left) continue;
      const float kept = is_upper ? values[i + left] : values[i];
      const float given = is_upper ? values[i] : values[i + left];
      values[i] = kept + shuffle_xor(given, mask);
    }
  }
  values[0] += shuffle_xor(values[0], 2);
  return values[0] + shuffle_xor(values[0], 1);
}

// Puts the warps' sums of eight rows into `sums` [row of the tile][warp].
STMOE_DEVICE void keep_row_sums(float* sums, float (&of_rows)[kTileGroup], int64_t row) {
  const float sum = warp_sums(of_rows);
  if (lane_index() % 4 == 0) sums[(row + lane_index() / 4) * 8 + warp_index()] = sum;
}

// After a barrier: partial[row of all rows][strip] = the sum over the tile's columns.
STMOE_DEVICE void write_row_sums(float* partial, const float* sums, const Tiles& t,
                                 const Tile& tile) {
  for (int64_t row = thread_index(); row < tile.end - tile.begin; row += block_threads()) {
    float total = 0;
    for (int warp = 0; warp < block_warps(); ++warp) total += sums[row * 8 + warp];
    partial[(tile.batch * t.rows + tile.begin + row) * t.strips + tile.strip] = total;
  }
}

// Host: about eight tiles for each multiprocessor where there are that many, of 8 to 64 rows.
// `threads` is the size of a block.
inline Tiles tiles_of(int64_t batches, int64_t rows, int64_t columns, int V, int* threads) {
  Tiles t{batches, rows, columns, 0, 0, 1, 0, 0, 0};
  const int64_t units = (columns + V - 1) / V;
  *threads = static_cast<int>(std::min<int64_t>(kTileThreads, (units + kWarp - 1) / kWarp * kWarp));
  t.strips = (units + *threads - 1) / *threads;
  constexpr int64_t kEnough = 1056;
  const int64_t groups = batches * t.strips * rows / kEnough / kTileGroup;
  t.block_rows = std::clamp<int64_t>(groups * kTileGroup, kTileGroup, kTileRows);
  t.row_blocks = (rows + t.block_rows - 1) / t.block_rows;
  return t;
}

}  // namespace stmoe::gpu
