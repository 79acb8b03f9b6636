// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/combine.h"

#include <vector>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

Var combine(const Var& rows_ERD, const Var& weight_NK, const DispatchPlan& plan) {
  OpScope scope("combine", OpScope::Pass::forward);
  STMOE_CHECK(rows_ERD.rank() == 3 && is_floating(rows_ERD.dtype()) &&
                  rows_ERD.dim(0) == plan.num_experts && rows_ERD.dim(1) == plan.rows_per_expert,
              "combine: rows are {} {}, expected floating [{}, {}, width]",
              name_of(rows_ERD.dtype()), rows_ERD.shape().text(), plan.num_experts,
              plan.rows_per_expert);
  const DType wide = rows_ERD.dtype() == DType::f64 ? DType::f64 : DType::f32;
  STMOE_CHECK(weight_NK.shape() == plan.row_NK.shape() && weight_NK.dtype() == wide,
              "combine: weights are {} {}, expected {} {}", name_of(weight_NK.dtype()),
              weight_NK.shape().text(), name_of(wide), plan.row_NK.shape().text());
  const int64_t width = rows_ERD.dim(2);
  const Tensor rows = rows_ERD.value().contiguous().reshape({plan.entry_R.numel(), width});
  const Tensor weight = weight_NK.value().contiguous();
  const Tensor y_ND = Tensor::empty({plan.row_NK.dim(0), width}, rows.dtype(), rows.device());
  kernels<CombineKernels>(rows.device()).forward(y_ND, rows, weight, plan);
  return record(
      "combine", y_ND, {rows_ERD, weight_NK},
      [plan, rows, weight, shape = rows_ERD.shape()](const Tensor& dy_ND) -> std::vector<Tensor> {
        const Tensor drows = Tensor::empty_like(rows);
        const Tensor dweight = Tensor::empty_like(weight);
        kernels<CombineKernels>(rows.device())
            .backward(drows, dweight, dy_ND.contiguous(), rows, weight, plan);
        return {drows.reshape(shape), dweight};
      });
}

}  // namespace stmoe
