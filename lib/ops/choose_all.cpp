// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/choose_all.h"

#include <algorithm>

#include "lib/base/profile.h"

namespace stmoe {
namespace {

void choose_cpu(const AllChosen& chosen, const Tensor& mask_N) {
  const int64_t experts = chosen.expert_NE.dim(1);
  for (int64_t n = 0; n < chosen.expert_NE.dim(0); ++n) {
    const bool is_skipped = mask_N.defined() && mask_N.data<int32_t>()[n] == 0;
    for (int64_t e = 0; e < experts; ++e) {
      chosen.expert_NE.data<int32_t>()[n * experts + e] = is_skipped ? -1 : static_cast<int32_t>(e);
      chosen.slot_NE.data<int32_t>()[n * experts + e] = is_skipped ? -1 : static_cast<int32_t>(n);
    }
  }
}

template <class T>
void invert_rows(const Tensor& inverse_NE, const Tensor& expert_NE) {
  const int64_t experts = expert_NE.dim(1);
  for (int64_t n = 0; n < expert_NE.dim(0); ++n) {
    const int32_t* expert = expert_NE.data<int32_t>() + n * experts;
    const int64_t count = std::count_if(expert, expert + experts, [](int32_t e) { return e >= 0; });
    std::fill_n(inverse_NE.data<T>() + n * experts, experts,
                T{1} / static_cast<T>(std::max<int64_t>(count, 1)));
  }
}

void invert_cpu(const Tensor& inverse_NE, const Tensor& expert_NE) {
  if (inverse_NE.dtype() == DType::f64)
    invert_rows<double>(inverse_NE, expert_NE);
  else
    invert_rows<float>(inverse_NE, expert_NE);
}

STMOE_REGISTER_KERNELS(ChooseAllKernels, cpu, {choose_cpu, invert_cpu})

}  // namespace

AllChosen choose_all(int64_t num_tokens, int64_t num_experts, Device device, const Tensor& mask_N) {
  OpScope scope("choose_all", OpScope::Pass::forward);
  STMOE_CHECK(!mask_N.defined() || mask_N.numel() == num_tokens,
              "choose_all: mask {} for {} tokens", mask_N.shape().text(), num_tokens);
  const Shape entries = {num_tokens, num_experts};
  const AllChosen chosen{Tensor::empty(entries, DType::i32, device),
                         Tensor::empty(entries, DType::i32, device)};
  kernels<ChooseAllKernels>(device).choose(chosen, mask_N.defined() ? mask_N.contiguous() : mask_N);
  return chosen;
}

Tensor inverse_counts(const Tensor& expert_NE, DType dtype) {
  OpScope scope("inverse_counts", OpScope::Pass::forward);
  const Tensor inverse_NE = Tensor::empty(expert_NE.shape(), dtype, expert_NE.device());
  kernels<ChooseAllKernels>(expert_NE.device()).invert(inverse_NE, expert_NE.contiguous());
  return inverse_NE;
}

}  // namespace stmoe
