// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/combine.h"

#include <vector>

#include "lib/base/threads.h"
#include "lib/ops/cpu/weighted_rows.h"

namespace stmoe {
namespace {

constexpr int64_t kRows = 64;  // of one chunk

template <class T>
void forward_tokens(const Tensor& y_ND, const Tensor& rows_RD, const Tensor& weight_NK,
                    const DispatchPlan& plan) {
  using C = Compute<T>;
  const int64_t k = plan.row_NK.dim(1), width = y_ND.dim(1);
  const int32_t* row = plan.row_NK.data<int32_t>();
  parallel_for(y_ND.dim(0), kRows, [&](int64_t begin, int64_t end) {
    std::vector<WeightedRow<T>> rows;
    for (int64_t n = begin; n < end; ++n) {
      rows.clear();
      for (int64_t i = n * k; i < (n + 1) * k; ++i)
        if (row[i] >= 0)
          rows.push_back({rows_RD.data<T>() + row[i] * width, weight_NK.data<C>()[i]});
      sum_weighted_rows<T>(y_ND.data<T>() + n * width, rows, width);
    }
  });
}

// drow = weight * dy; returns row . dy.
template <class T>
Compute<T> backward_row(T* drow, const T* row, const T* dy, Compute<T> weight, int64_t width) {
  using C = Compute<T>;
  C dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t d = 0; d < width; ++d) dot += static_cast<C>(row[d]) * static_cast<C>(dy[d]);
  for (int64_t d = 0; d < width; ++d) drow[d] = static_cast<T>(weight * static_cast<C>(dy[d]));
  return dot;
}

template <class T>
void backward_rows(const Tensor& drows_RD, const Tensor& dweight_NK, const Tensor& dy_ND,
                   const Tensor& rows_RD, const Tensor& weight_NK, const DispatchPlan& plan) {
  using C = Compute<T>;
  const int64_t k = plan.row_NK.dim(1), width = dy_ND.dim(1);
  const int32_t* entry = plan.entry_R.data<int32_t>();
  dweight_NK.fill(0.0);
  parallel_for(drows_RD.dim(0), kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* drow = drows_RD.data<T>() + r * width;
      if (entry[r] < 0)
        std::fill(drow, drow + width, T{});
      else
        dweight_NK.data<C>()[entry[r]] = backward_row<T>(drow, rows_RD.data<T>() + r * width,
                                                         dy_ND.data<T>() + entry[r] / k * width,
                                                         weight_NK.data<C>()[entry[r]], width);
    }
  });
}

void forward_cpu(const Tensor& y_ND, const Tensor& rows_RD, const Tensor& weight_NK,
                 const DispatchPlan& plan) {
  visit_floating(y_ND.dtype(),
                 [&](auto tag) { forward_tokens<decltype(tag)>(y_ND, rows_RD, weight_NK, plan); });
}

void backward_cpu(const Tensor& drows_RD, const Tensor& dweight_NK, const Tensor& dy_ND,
                  const Tensor& rows_RD, const Tensor& weight_NK, const DispatchPlan& plan) {
  visit_floating(dy_ND.dtype(), [&](auto tag) {
    backward_rows<decltype(tag)>(drows_RD, dweight_NK, dy_ND, rows_RD, weight_NK, plan);
  });
}

STMOE_REGISTER_KERNELS(CombineKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
