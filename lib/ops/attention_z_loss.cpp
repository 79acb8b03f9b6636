// SPDX-License-Identifier: Apache-2.0
// One value per query and head: little work beside the attention.
#include "lib/ops/attention_z_loss.h"

#include <algorithm>
#include <limits>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"

namespace stmoe {
namespace {

template <class T>
void mean_square(const Tensor& loss, const Tensor& num_pairs, const Tensor& lse_BHQ) {
  const T* lse = lse_BHQ.data<T>();
  double total = 0;
  int64_t pairs = 0;
  for (int64_t i = 0; i < lse_BHQ.numel(); ++i) {
    const bool is_seen = lse[i] != -std::numeric_limits<T>::infinity();
    const double value = is_seen ? static_cast<double>(lse[i]) : 0.0;
    total += value * value;
    pairs += is_seen;
  }
  *loss.data<T>() = static_cast<T>(pairs == 0 ? 0.0 : total / static_cast<double>(pairs));
  *num_pairs.data<int64_t>() = pairs;
}

template <class T>
void mean_square_gradient(const Tensor& dlse_BHQ, const Tensor& dloss, const Tensor& lse_BHQ,
                          const Tensor& num_pairs) {
  const T* lse = lse_BHQ.data<T>();
  T* dlse = dlse_BHQ.data<T>();
  const int64_t pairs = std::max<int64_t>(1, *num_pairs.data<int64_t>());
  const T factor = T{2} * *dloss.data<T>() / static_cast<T>(pairs);
  for (int64_t i = 0; i < lse_BHQ.numel(); ++i)
    dlse[i] = lse[i] == -std::numeric_limits<T>::infinity() ? T{0} : factor * lse[i];
}

void forward_cpu(const Tensor& loss, const Tensor& num_pairs, const Tensor& lse_BHQ) {
  if (lse_BHQ.dtype() == DType::f64)
    mean_square<double>(loss, num_pairs, lse_BHQ);
  else
    mean_square<float>(loss, num_pairs, lse_BHQ);
}

void backward_cpu(const Tensor& dlse_BHQ, const Tensor& dloss, const Tensor& lse_BHQ,
                  const Tensor& num_pairs) {
  if (lse_BHQ.dtype() == DType::f64)
    mean_square_gradient<double>(dlse_BHQ, dloss, lse_BHQ, num_pairs);
  else
    mean_square_gradient<float>(dlse_BHQ, dloss, lse_BHQ, num_pairs);
}

STMOE_REGISTER_KERNELS(AttentionZLossKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

Var attention_z_loss(const Var& lse_BHQ) {
  constexpr const char* kOp = AttentionZLossKernels::kOp;
  OpScope scope(kOp, OpScope::Pass::forward);
  STMOE_CHECK(lse_BHQ.dtype() == DType::f32 || lse_BHQ.dtype() == DType::f64,
              "{}: lse is {}, expected f32 or f64", kOp, name_of(lse_BHQ.dtype()));
  const Tensor lse = lse_BHQ.value().contiguous();
  const Tensor loss = Tensor::empty({1}, lse.dtype(), lse.device());
  const Tensor num_pairs = Tensor::empty({1}, DType::i64, lse.device());
  kernels<AttentionZLossKernels>(lse.device()).forward(loss, num_pairs, lse);
  return record(kOp, loss, {lse_BHQ}, [lse, num_pairs](const Tensor& dloss) -> std::vector<Tensor> {
    const Tensor dlse = Tensor::empty_like(lse);
    kernels<AttentionZLossKernels>(lse.device()).backward(dlse, dloss, lse, num_pairs);
    return {dlse};
  });
}

}  // namespace stmoe
