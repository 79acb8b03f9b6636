// SPDX-License-Identifier: Apache-2.0
// y[n,k] = x[n, index[n,k]], 0 where the index is -1: the probability of the chosen expert as its
// combine weight. The gradient goes back to the chosen columns and is 0 elsewhere.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct GatherColumnsKernels {
  static constexpr const char* kOp = "gather_columns";
  void (*forward)(const Tensor& y_NK, const Tensor& x_NE, const Tensor& index_NK);
  void (*backward)(const Tensor& dx_NE, const Tensor& dy_NK, const Tensor& index_NK);
};

// x_NE f32 or f64; index_NK i32, each -1 or a column (else BugError naming the row).
Var gather_columns(const Var& x_NE, const Tensor& index_NK);

}  // namespace stmoe
