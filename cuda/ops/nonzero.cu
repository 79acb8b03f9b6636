// SPDX-License-Identifier: Apache-2.0
// One id a thread: 4 bytes read, 4 written.
#include "cuda/runtime/launch.h"
#include "lib/ops/nonzero.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

STMOE_KERNEL mark_nonzero(int32_t* mask, const int32_t* ids, int64_t count) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) mask[i] = ids[i] != 0 ? 1 : 0;
}

void forward(const Tensor& mask, const Tensor& ids) {
  launch(mark_nonzero, blocks_for(ids.numel(), kThreads), kThreads, 0, mask.data<int32_t>(),
         ids.data<int32_t>(), ids.numel());
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(NonzeroKernels, STMOE_GPU, {gpu::forward})

}  // namespace stmoe
