// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/group_sums.h"
#include "lib/ops/group_means.h"

namespace stmoe::gpu {
namespace {

// A block for each group, a thread for each expert.
template <class T>
STMOE_KERNEL finish_means(T* mean_GE, const T* partial, GroupSizes sizes) {
  const int64_t group = block_index();
  for (int e = thread_index(); e < sizes.experts; e += kGroupThreads)
    mean_GE[group * sizes.experts + e] =
        static_cast<T>(group_sum(partial, sizes, group, 0, e) / static_cast<double>(sizes.tokens));
}

// As finish_means; real_N, or null, is read once by the block that has the group.
template <class T>
STMOE_KERNEL finish_shares(T* share_GE, const T* partial, const int32_t* real_N, GroupSizes sizes,
                           double factor) {
  STMOE_SHARED(int64_t, sums, kWarp);
  const int64_t group = block_index();
  factor /= static_cast<double>(sizes.tokens);
  if (real_N) {
    int64_t real = 0;
    for (int64_t n = thread_index(); n < sizes.tokens; n += kGroupThreads)
      real += real_N[group * sizes.tokens + n] != 0;
    real = block_sum(real, sums);
    factor *= static_cast<double>(real) / static_cast<double>(sizes.tokens);
  }
  for (int e = thread_index(); e < sizes.experts; e += kGroupThreads)
    share_GE[group * sizes.experts + e] =
        static_cast<T>(group_sum(partial, sizes, group, 1, e) * factor);
}

const int32_t* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<int32_t>() : nullptr;
}

template <class T>
void forward_typed(const Tensor& mean_GE, const Tensor& p_NE, const Tensor& mask_N) {
  const int64_t groups = mean_GE.dim(0);
  const GroupSizes sizes = group_sizes(groups, p_NE.dim(0) / groups, p_NE.dim(1));
  const Tensor partial = sum_groups<T>({p_NE.data<T>(), nullptr, nullptr, data_or_null(mask_N), 0},
                                       sizes, p_NE.device());
  launch(finish_means<T>, {groups}, kGroupThreads, 0, mean_GE.data<T>(), partial.data<T>(), sizes);
}

// Choices are counted in f32, exactly: a chunk has fewer than 2^24.
template <class T>
void shares_typed(const Tensor& share_GE, const Tensor& expert_NK, const ShareOptions& options) {
  const int64_t groups = share_GE.dim(0);
  const GroupSizes sizes = group_sizes(groups, expert_NK.dim(0) / groups, share_GE.dim(1));
  const Tensor partial = sum_groups<T>({nullptr, expert_NK.data<int32_t>(),
                                        data_or_null(options.slot_NK), nullptr, expert_NK.dim(1)},
                                       sizes, share_GE.device());
  launch(finish_shares<T>, {groups}, kGroupThreads, 0, share_GE.data<T>(), partial.data<T>(),
         data_or_null(options.real_N), sizes, options.factor);
}

void forward(const Tensor& mean_GE, const Tensor& p_NE, const Tensor& mask_N) {
  if (p_NE.dtype() == DType::f64)
    forward_typed<double>(mean_GE, p_NE, mask_N);
  else
    forward_typed<float>(mean_GE, p_NE, mask_N);
}

void backward(const Tensor& dp_NE, const Tensor& dmean_GE, const Tensor& mask_N) {
  const double factor = static_cast<double>(dmean_GE.dim(0)) / static_cast<double>(dp_NE.dim(0));
  if (dp_NE.dtype() == DType::f64)
    spread_groups<double>(dp_NE, dmean_GE, nullptr, factor, mask_N);
  else
    spread_groups<float>(dp_NE, dmean_GE, nullptr, static_cast<float>(factor), mask_N);
}

void shares(const Tensor& share_GE, const Tensor& expert_NK, const ShareOptions& options) {
  if (share_GE.dtype() == DType::f64)
    shares_typed<double>(share_GE, expert_NK, options);
  else
    shares_typed<float>(share_GE, expert_NK, options);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(GroupMeansKernels, STMOE_GPU, {gpu::forward, gpu::backward, gpu::shares})

}  // namespace stmoe
