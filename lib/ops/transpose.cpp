// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/transpose.h"

namespace stmoe {

void copy_transposed(const MatrixView& out, const MatrixView& in) {
  kernels<TransposeKernels>(out.device).copy(out, in);
}

}  // namespace stmoe
