// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/look_up.h"

#include "lib/base/profile.h"

namespace stmoe {
namespace {

void look_up_cpu(const Tensor& expert_N1, const Tensor& table, const Tensor& id_N, int64_t period,
                 const Tensor& mask_N) {
  const auto id = id_N.span<int32_t>(), entries = table.span<int32_t>();
  auto expert = expert_N1.span<int32_t>();
  for (size_t n = 0; n < id.size(); ++n) {
    const int64_t entry = id[n] < 0 ? -1 : id[n] % period;
    STMOE_CHECK(entry >= 0 && entry < std::ssize(entries),
                "look_up: token {} has id {} for a table of {}", n, id[n], entries.size());
    const bool is_skipped = mask_N.defined() && mask_N.data<int32_t>()[n] == 0;
    expert[n] = is_skipped ? -1 : entries[static_cast<size_t>(entry)];
  }
}

STMOE_REGISTER_KERNELS(LookUpKernels, cpu, {look_up_cpu})

}  // namespace

Tensor look_up(const Tensor& table, const Tensor& id_N, int64_t period, const Tensor& mask_N) {
  OpScope scope("look_up", OpScope::Pass::forward);
  STMOE_CHECK(table.dtype() == DType::i32 && id_N.dtype() == DType::i32 && period >= 1,
              "look_up: table {}, ids {}, period {}", name_of(table.dtype()), name_of(id_N.dtype()),
              period);
  STMOE_CHECK(!mask_N.defined() || mask_N.numel() == id_N.numel(), "look_up: mask {} for {} ids",
              mask_N.shape().text(), id_N.numel());
  const Tensor expert_N1 = Tensor::empty({id_N.numel(), 1}, DType::i32, id_N.device());
  kernels<LookUpKernels>(id_N.device())
      .look_up(expert_N1, table.contiguous(), id_N.contiguous(), period,
               mask_N.defined() ? mask_N.contiguous() : mask_N);
  return expert_N1;
}

}  // namespace stmoe
