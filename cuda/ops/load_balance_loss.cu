// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/group_sums.h"
#include "lib/ops/load_balance_loss.h"

namespace stmoe::gpu {
namespace {

// A block for each group, a thread for each expert: f, and the group's sum of f P.
template <class T>
STMOE_KERNEL finish_groups(T* share_GE, double* loss_G, const T* partial, GroupSizes sizes) {
  STMOE_SHARED(double, sums, kWarp);
  const int64_t group = block_index();
  const double per_token = 1.0 / static_cast<double>(sizes.tokens);
  double total = 0;
  for (int e = thread_index(); e < sizes.experts; e += kGroupThreads) {
    const double share = group_sum(partial, sizes, group, 1, e) * per_token;
    share_GE[group * sizes.experts + e] = static_cast<T>(share);
    total += share * group_sum(partial, sizes, group, 0, e) * per_token;
  }
  total = block_sum(total, sums);
  if (thread_index() == 0) loss_G[group] = total;
}

// One block: the groups' mean, times the number of experts.
template <class T>
STMOE_KERNEL finish_loss(T* loss, const double* loss_G, int64_t groups, double factor) {
  STMOE_SHARED(double, sums, kWarp);
  double total = 0;
  for (int64_t g = thread_index(); g < groups; g += kGroupThreads) total += loss_G[g];
  total = block_sum(total, sums);
  if (thread_index() == 0) *loss = static_cast<T>(total * factor);
}

template <class T>
void forward_typed(const Tensor& loss, const Tensor& share_GE, const Tensor& p_NE,
                   const Tensor& expert_NK, const Tensor& mask_N) {
  const int64_t groups = share_GE.dim(0), experts = p_NE.dim(1);
  const GroupSizes sizes = group_sizes(groups, p_NE.dim(0) / groups, experts);
  const GroupTerms<T> terms = {p_NE.data<T>(), expert_NK.data<int32_t>(), nullptr,
                               mask_N.defined() ? mask_N.data<int32_t>() : nullptr,
                               expert_NK.dim(1)};
  const Tensor partial = sum_groups(terms, sizes, p_NE.device());
  const Tensor loss_G = Tensor::empty({groups}, DType::f64, p_NE.device());
  launch(finish_groups<T>, {groups}, kGroupThreads, 0, share_GE.data<T>(), loss_G.data<double>(),
         partial.data<T>(), sizes);
  launch(finish_loss<T>, {1}, kGroupThreads, 0, loss.data<T>(), loss_G.data<double>(), groups,
         static_cast<double>(experts) / static_cast<double>(groups));
}

template <class T>
void backward_typed(const Tensor& dp_NE, const Tensor& dloss, const Tensor& share_GE,
                    const Tensor& mask_N) {
  const double factor = static_cast<double>(dp_NE.dim(1)) / static_cast<double>(dp_NE.dim(0));
  spread_groups<T>(dp_NE, share_GE, dloss.data<T>(), static_cast<T>(factor), mask_N);
}

void forward(const Tensor& loss, const Tensor& share_GE, const Tensor& p_NE,
             const Tensor& expert_NK, const Tensor& mask_N) {
  if (p_NE.dtype() == DType::f64)
    forward_typed<double>(loss, share_GE, p_NE, expert_NK, mask_N);
  else
    forward_typed<float>(loss, share_GE, p_NE, expert_NK, mask_N);
}

void backward(const Tensor& dp_NE, const Tensor& dloss, const Tensor& share_GE,
              const Tensor& mask_N) {
  if (dp_NE.dtype() == DType::f64)
    backward_typed<double>(dp_NE, dloss, share_GE, mask_N);
  else
    backward_typed<float>(dp_NE, dloss, share_GE, mask_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(LoadBalanceLossKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
