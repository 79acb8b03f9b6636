// SPDX-License-Identifier: Apache-2.0
// Sums of the rows of a small matrix of partial sums, in an order that depends on its size only.
#pragma once

#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {

// Columns and rows that a block adds at a time.
inline constexpr int kSumColumns = kWarp, kSumRows = 32;

// Block (x, y): columns 32 x ... of matrix y. A warp reads 32 neighbours of every 32nd row; then
// the warps' sums are added in order. Reads each element once; 1024 threads, because there are few
// columns. sum (+)= when it accumulates.
template <class T, class C>
STMOE_KERNEL sum_columns_kernel(T* sum, const C* partial, int64_t rows, int64_t columns,
                                bool accumulate) {
  STMOE_SHARED(C, warps, kSumRows * kSumColumns);
  const int64_t column = block_index() * kSumColumns + lane_index();
  const C* matrix = partial + block_index_y() * rows * columns;
  C total = 0;
  if (column < columns)
    for (int64_t row = warp_index(); row < rows; row += kSumRows)
      total += matrix[row * columns + column];
  warps[thread_index()] = total;
  STMOE_SYNC_THREADS();
  if (warp_index() == 0 && column < columns) {
    T& result = sum[block_index_y() * columns + column];
    total = accumulate ? load_as(result) : C(0);
    for (int row = 0; row < kSumRows; ++row) total += warps[row * kSumColumns + lane_index()];
    store_as(result, total);
  }
}

// sum [matrices, columns] = the sums of the rows of each matrix of partial [matrices, rows,
// columns]; at most 65535 matrices.
template <class T, class C>
void sum_columns(T* sum, const C* partial, int64_t matrices, int64_t rows, int64_t columns,
                 bool accumulate = false) {
  launch(sum_columns_kernel<T, C>, {blocks_for(columns, kSumColumns).x, matrices},
         kSumColumns * kSumRows, 0, sum, partial, rows, columns, accumulate);
}

}  // namespace stmoe::gpu
