// SPDX-License-Identifier: Apache-2.0
// Tokens into expert rows: rows[r] = x[token of row r], zeros in unfilled rows. A token chosen K
// times is copied K times; its gradient is the sum over its rows. Un-jittered
// activations go in, whatever the router saw.
#pragma once

#include "lib/autograd/var.h"
#include "lib/ops/dispatch_plan.h"

namespace stmoe {

struct DispatchKernels {
  static constexpr const char* kOp = "dispatch";
  void (*forward)(const Tensor& rows_RD, const Tensor& x_ND, const DispatchPlan& plan);
  void (*backward)(const Tensor& dx_ND, const Tensor& drows_RD, const DispatchPlan& plan);
};

// x_ND floating, N as in the plan. Returns [plan.num_rows(), D] in x's type.
Var dispatch(const Var& x_ND, const DispatchPlan& plan);

}  // namespace stmoe
