// SPDX-License-Identifier: Apache-2.0
// One value per token: too little work for a second thread.
#include "lib/ops/router_z_loss.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

template <class T>
void mean_square(const Tensor& loss, const Tensor& lse_N) {
  const T* lse = lse_N.data<T>();
  const int64_t tokens = lse_N.numel();
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t n = 0; n < tokens; ++n)
    total += static_cast<double>(lse[n]) * static_cast<double>(lse[n]);
  *loss.data<T>() = static_cast<T>(total / static_cast<double>(tokens));
}

template <class T>
void mean_square_gradient(const Tensor& dlse_N, const Tensor& dloss, const Tensor& lse_N) {
  const T* lse = lse_N.data<T>();
  T* dlse = dlse_N.data<T>();
  const T factor = T{2} * *dloss.data<T>() / static_cast<T>(lse_N.numel());
  for (int64_t n = 0; n < lse_N.numel(); ++n) dlse[n] = factor * lse[n];
}

void forward_cpu(const Tensor& loss, const Tensor& lse_N) {
  if (lse_N.dtype() == DType::f64)
    mean_square<double>(loss, lse_N);
  else
    mean_square<float>(loss, lse_N);
}

void backward_cpu(const Tensor& dlse_N, const Tensor& dloss, const Tensor& lse_N) {
  if (lse_N.dtype() == DType::f64)
    mean_square_gradient<double>(dlse_N, dloss, lse_N);
  else
    mean_square_gradient<float>(dlse_N, dloss, lse_N);
}

STMOE_REGISTER_KERNELS(RouterZLossKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

Var router_z_loss(const Var& lse_N) {
  OpScope scope("router_z_loss", OpScope::Pass::forward);
  STMOE_CHECK(lse_N.numel() >= 1 && (lse_N.dtype() == DType::f32 || lse_N.dtype() == DType::f64),
              "router_z_loss: lse is {} {}, expected f32 or f64 [tokens]", name_of(lse_N.dtype()),
              lse_N.shape().text());
  const Tensor lse = lse_N.value().contiguous();
  const Tensor loss = Tensor::empty({1}, lse.dtype(), lse.device());
  kernels<RouterZLossKernels>(lse.device()).forward(loss, lse);
  return record("router_z_loss", loss, {lse_N}, [lse](const Tensor& dloss) -> std::vector<Tensor> {
    const Tensor dlse = Tensor::empty_like(lse);
    kernels<RouterZLossKernels>(lse.device()).backward(dlse, dloss, lse);
    return {dlse};
  });
}

}  // namespace stmoe
