// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/own_product.h"

namespace stmoe {

void own_product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  kernels<OwnProductKernels>(c.device).multiply(c, a, b, accumulate);
}

}  // namespace stmoe
