// SPDX-License-Identifier: Apache-2.0
// The step from one residual sublayer to the next in one pass:
//   sum = x + dropout(branch),  y = rms_norm(sum) * scale
// and in one pass back: d(sum) joins the gradient of the norm with the one that arrives at the sum,
// and d(branch) is its dropout, the mask drawn again. The sum is rounded once, and the norm is that
// of the rounded sum.
#pragma once

#include "lib/autograd/var.h"
#include "lib/ops/dropout_mask.h"

namespace stmoe {

struct ResidualNormForward {
  Tensor sum_ND, y_ND, rstd_N;      // written; y and rstd may be undefined: the sum alone
  Tensor x_ND, branch_ND, scale_D;  // branch may be undefined: the sum is x, and not written
  DropoutMask mask;
  double eps;
};

struct ResidualNormBackward {
  // Written. dsum may be one of the gradients that are read; dbranch too, another one. No dbranch
  // when there is no branch or its mask keeps everything: it is dsum then.
  Tensor dsum_ND, dbranch_ND, dscale_D;
  Tensor from_sum_ND, dy_ND;  // the gradients of both results; from_sum may be undefined
  Tensor sum_ND, scale_D, rstd_N;
  DropoutMask mask;
};

struct ResidualNormKernels {
  static constexpr const char* kOp = "residual_norm";
  void (*forward)(const ResidualNormForward& task);
  void (*backward)(const ResidualNormBackward& task);
};

struct ResidualNorm {
  Var sum, y;
};

// x and branch [..., D] of one floating type and shape; scale_D f32 (f64 when x is f64). `branch`
// may be undefined: the sum is x. A mask shared along the last dimension is refused.
ResidualNorm residual_norm(const Var& x, const Var& branch, const Var& scale_D,
                           const Dropout& dropout, double eps = 1e-6);

// The sum alone, with the bits that it has there.
Var residual_sum(const Var& x, const Var& branch, const Dropout& dropout);

}  // namespace stmoe
