// SPDX-License-Identifier: Apache-2.0
// A token's rows added up: the forward pass of combine, and without weights the gradient of
// dispatch.
#pragma once

#include "cuda/device/vector.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/tensor.h"

namespace stmoe::gpu {

inline constexpr int kSumThreads = 256, kSumWarps = kSumThreads / kWarp;

// y[n] = sum_j weight[n,j] * rows[row[n,j]] in the order of j, in f32 (f64). A warp for each token,
// a lane for each vector of the row; reads the token's rows once and writes one. weight_NK null: 1.
template <class T, int V>
STMOE_KERNEL sum_token_rows(T* y_ND, const T* rows_RD, const Compute<T>* weight_NK,
                            const int32_t* row_NK, int64_t tokens, int64_t k, int64_t width) {
  using C = Compute<T>;
  const int64_t n = block_index() * kSumWarps + warp_index();
  if (n < tokens)
    for (int64_t d = lane_index() * V; d < width; d += kWarp * V) {
      C total[V] = {};
      for (int64_t i = n * k; i < (n + 1) * k; ++i) {
        const int64_t row = row_NK[i];
        if (row < 0) continue;
        const C weight = weight_NK ? weight_NK[i] : C(1);
        C values[V];
        load_values<V>(values, rows_RD + row * width + d);
        STMOE_UNROLL
        for (int j = 0; j < V; ++j) total[j] += weight * values[j];
      }
      store_values(y_ND + n * width + d, total);
    }
}

template <class T>
void sum_tokens(const Tensor& y_ND, const Tensor& rows_RD, const Compute<T>* weight_NK,
                const Tensor& row_NK) {
  const int64_t tokens = y_ND.dim(0), width = y_ND.dim(1);
  T* y = y_ND.data<T>();
  const T* rows = rows_RD.data<T>();
  const auto run = [&](auto kernel) {
    launch(kernel, blocks_for(tokens, kSumWarps), kSumThreads, 0, y, rows, weight_NK,
           row_NK.data<int32_t>(), tokens, row_NK.dim(1), width);
  };
  if (tiles_rows(kVectorOf<T>, width, y, rows))
    run(sum_token_rows<T, kVectorOf<T>>);
  else
    run(sum_token_rows<T, 1>);
}

}  // namespace stmoe::gpu
