// SPDX-License-Identifier: Apache-2.0
// Both directions are gathers: every row of the result is written once, by one warp.
#include "cuda/device/token_sums.h"
#include "lib/ops/dispatch.h"

namespace stmoe::gpu {
namespace {

// A warp for each expert row, a lane for each `Unit` of it: 16 bytes, or one element where rows
// are no multiple of that. Reads a row of a token and writes one; an unfilled row is only written.
template <class Unit>
STMOE_KERNEL gather_tokens(Unit* rows_RU, const Unit* x_NU, const int32_t* entry_R, int64_t rows,
                           int64_t k, int64_t units) {
  const int64_t r = block_index() * kSumWarps + warp_index();
  if (r < rows) {
    const int64_t entry = entry_R[r];
    const Unit* from = x_NU + (entry < 0 ? 0 : quotient(entry, k) * units);
    for (int64_t u = lane_index(); u < units; u += kWarp)
      rows_RU[r * units + u] = entry < 0 ? Unit{} : from[u];
  }
}

template <class Unit>
void gather(const Tensor& rows_RD, const Tensor& x_ND, const DispatchPlan& plan) {
  const int64_t row_bytes = x_ND.dim(1) * static_cast<int64_t>(size_of(x_ND.dtype()));
  launch(gather_tokens<Unit>, blocks_for(rows_RD.dim(0), kSumWarps), kSumThreads, 0,
         reinterpret_cast<Unit*>(rows_RD.raw()), reinterpret_cast<const Unit*>(x_ND.raw()),
         plan.entry_R.data<int32_t>(), rows_RD.dim(0), plan.row_NK.dim(1),
         row_bytes / static_cast<int64_t>(sizeof(Unit)));
}

void forward(const Tensor& rows_RD, const Tensor& x_ND, const DispatchPlan& plan) {
  const int64_t size = static_cast<int64_t>(size_of(x_ND.dtype()));
  if (tiles_rows(16, x_ND.dim(1) * size, rows_RD.raw(), x_ND.raw()))
    gather<Pack<float>>(rows_RD, x_ND, plan);
  else if (size == 2)
    gather<uint16_t>(rows_RD, x_ND, plan);
  else if (size == 4)
    gather<uint32_t>(rows_RD, x_ND, plan);
  else
    gather<uint64_t>(rows_RD, x_ND, plan);
}

void backward(const Tensor& dx_ND, const Tensor& drows_RD, const DispatchPlan& plan) {
  visit_floating(dx_ND.dtype(), [&](auto tag) {
    sum_tokens<decltype(tag)>(dx_ND, drows_RD, nullptr, plan.row_NK);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(DispatchKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
