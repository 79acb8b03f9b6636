// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dispatch.h"

#include <vector>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

Var dispatch(const Var& x_ND, const DispatchPlan& plan) {
  OpScope scope("dispatch", OpScope::Pass::forward);
  STMOE_CHECK(x_ND.rank() == 2 && is_floating(x_ND.dtype()) && x_ND.dim(0) == plan.row_NK.dim(0),
              "dispatch: x is {} {}, expected floating [{} tokens, width]", name_of(x_ND.dtype()),
              x_ND.shape().text(), plan.row_NK.dim(0));
  const Tensor x = x_ND.value().contiguous();
  const int64_t width = x.dim(1);
  const Tensor rows_RD = Tensor::empty({plan.num_rows(), width}, x.dtype(), x.device());
  kernels<DispatchKernels>(x.device()).forward(rows_RD, x, plan);
  return record(
      "dispatch", rows_RD, {x_ND}, [plan, width](const Tensor& drows_RD) -> std::vector<Tensor> {
        const Tensor dx_ND =
            Tensor::empty({plan.row_NK.dim(0), width}, drows_RD.dtype(), drows_RD.device());
        kernels<DispatchKernels>(drows_RD.device()).backward(dx_ND, drows_RD, plan);
        return {dx_ND};
      });
}

}  // namespace stmoe
