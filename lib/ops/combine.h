// SPDX-License-Identifier: Apache-2.0
// Expert rows back to tokens: y[n] = sum_k weight[n,k] * rows[row of (n,k)], entries without a row
// adding nothing; a token whose entries all were dropped gets zeros. Sums in f32 (f64). Gradients,
// one pass over the rows:
//   drows[row of (n,k)] = weight[n,k] * dy[n], zero in unfilled rows;  dweight[n,k] = rows[row of
//   (n,k)] . dy[n], or 0.
#pragma once

#include "lib/autograd/var.h"
#include "lib/ops/dispatch_plan.h"

namespace stmoe {

struct CombineKernels {
  static constexpr const char* kOp = "combine";
  void (*forward)(const Tensor& y_ND, const Tensor& rows_RD, const Tensor& weight_NK,
                  const DispatchPlan& plan);
  void (*backward)(const Tensor& drows_RD, const Tensor& dweight_NK, const Tensor& dy_ND,
                   const Tensor& rows_RD, const Tensor& weight_NK, const DispatchPlan& plan);
};

// rows_RD [plan.num_rows(), D] floating; weight_NK f32 (f64 when the rows are f64). y_ND in the
// rows' type.
Var combine(const Var& rows_RD, const Var& weight_NK, const DispatchPlan& plan);

}  // namespace stmoe
