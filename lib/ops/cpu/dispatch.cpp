// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch.h"

#include <cstring>
#include <vector>

#include "lib/base/threads.h"
#include "lib/ops/cpu/weighted_rows.h"

namespace stmoe {
namespace {

constexpr int64_t kRows = 64;  // of one chunk

void forward_cpu(const Tensor& rows_RD, const Tensor& x_ND, const DispatchPlan& plan) {
  const int64_t k = plan.row_NK.dim(1);
  const int64_t row_bytes = x_ND.dim(1) * static_cast<int64_t>(size_of(x_ND.dtype()));
  const int32_t* entry = plan.entry_R.data<int32_t>();
  parallel_for(rows_RD.dim(0), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* row = rows_RD.raw() + r * row_bytes;
      if (entry[r] < 0)
        std::memset(row, 0, static_cast<size_t>(row_bytes));
      else
        std::memcpy(row, x_ND.raw() + entry[r] / k * row_bytes, static_cast<size_t>(row_bytes));
    }
  });
}

template <class T>
void backward_tokens(const Tensor& dx_ND, const Tensor& drows_RD, const DispatchPlan& plan) {
  const int64_t k = plan.row_NK.dim(1), width = dx_ND.dim(1);
  const int32_t* row = plan.row_NK.data<int32_t>();
  parallel_for(dx_ND.dim(0), kRows, [&](int64_t begin, int64_t end) {
    std::vector<WeightedRow<T>> rows;
    for (int64_t n = begin; n < end; ++n) {
      rows.clear();
      for (int64_t i = n * k; i < (n + 1) * k; ++i)
        if (row[i] >= 0) rows.push_back({drows_RD.data<T>() + row[i] * width, 1});
      sum_weighted_rows<T>(dx_ND.data<T>() + n * width, rows, width);
    }
  });
}

void backward_cpu(const Tensor& dx_ND, const Tensor& drows_RD, const DispatchPlan& plan) {
  visit_floating(dx_ND.dtype(),
                 [&](auto tag) { backward_tokens<decltype(tag)>(dx_ND, drows_RD, plan); });
}

STMOE_REGISTER_KERNELS(DispatchKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
