// SPDX-License-Identifier: Apache-2.0
// A warp that goes through a row of any length several times: lane l has columns l, l + 32, ...,
// the first kHeldColumns of them in registers, so that rows of up to 256 columns are read once.
#pragma once

#include "cuda/device/warp.h"

namespace stmoe::gpu {

inline constexpr int kHeldColumns = 8;

template <class T>
struct LaneColumns {
  T held[kHeldColumns];
  const T* row;
  int count;
};

template <class T>
STMOE_DEVICE LaneColumns<T> load_columns(const T* row, int count) {
  LaneColumns<T> columns;
  columns.row = row;
  columns.count = count;
  STMOE_UNROLL
  for (int i = 0; i < kHeldColumns; ++i) {
    const int column = i * kWarp + lane_index();
    columns.held[i] = column < count ? row[column] : T(0);
  }
  return columns;
}

// f(column, value) for the lane's columns, in order.
template <class T, class F>
STMOE_DEVICE void for_each_column(const LaneColumns<T>& columns, F f) {
  STMOE_UNROLL
  for (int i = 0; i < kHeldColumns; ++i) {
    const int column = i * kWarp + lane_index();
    if (column < columns.count) f(column, columns.held[i]);
  }
  for (int column = kHeldColumns * kWarp + lane_index(); column < columns.count; column += kWarp)
    f(column, columns.row[column]);
}

}  // namespace stmoe::gpu
