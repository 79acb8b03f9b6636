// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/combine.h"

#include <vector>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

Var combine(const Var& rows_RD, const Var& weight_NK, const DispatchPlan& plan) {
  OpScope scope("combine", OpScope::Pass::forward);
  STMOE_CHECK(
      rows_RD.rank() == 2 && is_floating(rows_RD.dtype()) && rows_RD.dim(0) == plan.num_rows(),
      "combine: rows are {} {}, expected floating [{}, width]", name_of(rows_RD.dtype()),
      rows_RD.shape().text(), plan.num_rows());
  const DType wide = rows_RD.dtype() == DType::f64 ? DType::f64 : DType::f32;
  STMOE_CHECK(weight_NK.shape() == plan.row_NK.shape() && weight_NK.dtype() == wide,
              "combine: weights are {} {}, expected {} {}", name_of(weight_NK.dtype()),
              weight_NK.shape().text(), name_of(wide), plan.row_NK.shape().text());
  const Tensor rows = rows_RD.value().contiguous(), weight = weight_NK.value().contiguous();
  const Tensor y_ND = Tensor::empty({plan.row_NK.dim(0), rows.dim(1)}, rows.dtype(), rows.device());
  kernels<CombineKernels>(rows.device()).forward(y_ND, rows, weight, plan);
  return record("combine", y_ND, {rows_RD, weight_NK},
                [plan, rows, weight](const Tensor& dy_ND) -> std::vector<Tensor> {
                  const Tensor drows = Tensor::empty_like(rows);
                  const Tensor dweight = Tensor::empty_like(weight);
                  kernels<CombineKernels>(rows.device())
                      .backward(drows, dweight, dy_ND.contiguous(), rows, weight, plan);
                  return {drows, dweight};
                });
}

}  // namespace stmoe
