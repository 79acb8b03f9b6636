// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/launch.h"
#include "lib/ops/look_up.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// A thread for each token: reads its id and an entry of the table, which lies in L2, writes 4
// bytes. An id without an entry has no expert.
STMOE_KERNEL look_up_ids(int32_t* expert_N1, const int32_t* table, const int32_t* id_N,
                         const int32_t* mask_N, int64_t tokens, int64_t period, int64_t entries) {
  const int64_t n = block_index() * kThreads + thread_index();
  if (n < tokens) {
    const int64_t entry = id_N[n] < 0 ? entries : id_N[n] % period;
    const bool has_expert = entry < entries && (!mask_N || mask_N[n] != 0);
    expert_N1[n] = has_expert ? table[entry] : -1;
  }
}

void look_up(const Tensor& expert_N1, const Tensor& table, const Tensor& id_N, int64_t period,
             const Tensor& mask_N) {
  launch(look_up_ids, blocks_for(id_N.numel(), kThreads), kThreads, 0, expert_N1.data<int32_t>(),
         table.data<int32_t>(), id_N.data<int32_t>(),
         mask_N.defined() ? mask_N.data<int32_t>() : nullptr, id_N.numel(), period, table.numel());
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(LookUpKernels, STMOE_GPU, {gpu::look_up})

}  // namespace stmoe
