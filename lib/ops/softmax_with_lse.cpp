// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/softmax_with_lse.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {

SoftmaxWithLse softmax_with_lse(const Var& logits_NE) {
  OpScope scope("softmax_with_lse", OpScope::Pass::forward);
  STMOE_CHECK(logits_NE.rank() == 2 && logits_NE.dim(1) >= 1 &&
                  (logits_NE.dtype() == DType::f32 || logits_NE.dtype() == DType::f64),
              "softmax_with_lse: logits are {} {}, expected f32 or f64 [tokens, experts]",
              name_of(logits_NE.dtype()), logits_NE.shape().text());
  const Tensor logits = logits_NE.value().contiguous();
  const Tensor p_NE = Tensor::empty_like(logits);
  const Tensor lse_N = Tensor::empty({logits.dim(0)}, logits.dtype(), logits.device());
  kernels<SoftmaxWithLseKernels>(logits.device()).forward(p_NE, lse_N, logits);
  auto results =
      record_many("softmax_with_lse", {p_NE, lse_N}, {logits_NE},
                  [p_NE](std::span<const Tensor> dys) -> std::vector<Tensor> {
                    const Tensor dlogits = Tensor::empty_like(p_NE);
                    kernels<SoftmaxWithLseKernels>(p_NE.device())
                        .backward(dlogits, dys[0].defined() ? dys[0].contiguous() : dys[0],
                                  dys[1].defined() ? dys[1].contiguous() : dys[1], p_NE);
                    return {dlogits};
                  });
  return {results[0], results[1]};
}

}  // namespace stmoe
