// SPDX-License-Identifier: Apache-2.0
// Both directions are gathers, as in dispatch.cu; the gradient of a weight is made in the pass that
// makes its row's.
#include "cuda/device/token_sums.h"
#include "cuda/device/warp.h"
#include "lib/ops/combine.h"

namespace stmoe::gpu {
namespace {

// A warp for each expert row, a lane for each vector of it. Reads the row and the token's dy,
// writes the row's gradient, and one weight's: the sum over the lanes of what each has of row . dy.
template <class T, int V>
STMOE_KERNEL spread_gradients(T* drows_RD, Compute<T>* dweight_NK, const T* dy_ND, const T* rows_RD,
                              const Compute<T>* weight_NK, const int32_t* entry_R, int64_t rows,
                              int64_t k, int64_t width) {
  using C = Compute<T>;
  const int64_t r = block_index() * kSumWarps + warp_index();
  if (r < rows) {
    const int64_t entry = entry_R[r];
    const C weight = entry < 0 ? C(0) : weight_NK[entry];
    const T* dy = dy_ND + (entry < 0 ? 0 : quotient(entry, k) * width);
    C dot = 0;
    for (int64_t d = lane_index() * V; d < width; d += kWarp * V) {
      C drow[V] = {};
      if (entry >= 0) {
        C gradient[V], row[V];
        load_values<V>(gradient, dy + d);
        load_values<V>(row, rows_RD + r * width + d);
        STMOE_UNROLL
        for (int j = 0; j < V; ++j) {
          dot += row[j] * gradient[j];
          drow[j] = weight * gradient[j];
        }
      }
      store_values(drows_RD + r * width + d, drow);
    }
    dot = warp_sum(dot);
    if (entry >= 0 && lane_index() == 0) dweight_NK[entry] = dot;
  }
}

void forward(const Tensor& y_ND, const Tensor& rows_RD, const Tensor& weight_NK,
             const DispatchPlan& plan) {
  visit_floating(y_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    sum_tokens<T>(y_ND, rows_RD, weight_NK.data<Compute<T>>(), plan.row_NK);
  });
}

template <class T>
void spread(const Tensor& drows_RD, const Tensor& dweight_NK, const Tensor& dy_ND,
            const Tensor& rows_RD, const Tensor& weight_NK, const DispatchPlan& plan) {
  using C = Compute<T>;
  const int64_t num_rows = rows_RD.dim(0), width = rows_RD.dim(1);
  T* drows = drows_RD.data<T>();
  const T *dy = dy_ND.data<T>(), *rows = rows_RD.data<T>();
  const auto run = [&](auto kernel) {
    launch(kernel, blocks_for(num_rows, kSumWarps), kSumThreads, 0, drows, dweight_NK.data<C>(), dy,
           rows, weight_NK.data<C>(), plan.entry_R.data<int32_t>(), num_rows, plan.row_NK.dim(1),
           width);
  };
  if (tiles_rows(kVectorOf<T>, width, drows, dy, rows))
    run(spread_gradients<T, kVectorOf<T>>);
  else
    run(spread_gradients<T, 1>);
}

void backward(const Tensor& drows_RD, const Tensor& dweight_NK, const Tensor& dy_ND,
              const Tensor& rows_RD, const Tensor& weight_NK, const DispatchPlan& plan) {
  dweight_NK.fill(0);  // of entries without a row
  visit_floating(dy_ND.dtype(), [&](auto tag) {
    spread<decltype(tag)>(drows_RD, dweight_NK, dy_ND, rows_RD, weight_NK, plan);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(CombineKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
