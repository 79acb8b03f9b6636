// SPDX-License-Identifier: Apache-2.0
// A few thousand values: the bucket of a relative position is computed where it is needed.
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/relative_bias.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// One element a thread.
template <class T>
STMOE_KERNEL gather_bias(T* bias, const T* table, int64_t heads, int64_t count,
                         int64_t first_relative, RelativeBuckets buckets) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < heads * count) {
    const int64_t head = i / count, relative = first_relative + i % count;
    bias[i] = table[head * buckets.num_buckets + relative_bucket(relative, buckets)];
  }
}

// A warp has one bucket of one head, and goes through all positions: a few hundred, from the cache.
template <class T>
STMOE_KERNEL sum_buckets(T* dtable, const T* dbias, int64_t heads, int64_t count,
                         int64_t first_relative, RelativeBuckets buckets) {
  const int64_t which = block_index() * block_warps() + warp_index();
  const int64_t head = which / buckets.num_buckets, bucket = which % buckets.num_buckets;
  double total = 0;
  if (head < heads)
    for (int64_t r = lane_index(); r < count; r += kWarp)
      if (relative_bucket(first_relative + r, buckets) == bucket)
        total += static_cast<double>(load_as(dbias[head * count + r]));
  total = warp_sum(total);
  if (head < heads && lane_index() == 0) store_as(dtable[which], static_cast<Compute<T>>(total));
}

void forward(const Tensor& bias_HR, const Tensor& table_HB, int64_t first_relative,
             const RelativeBuckets& buckets) {
  visit_floating(table_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(gather_bias<T>, blocks_for(bias_HR.numel(), kThreads), kThreads, 0, bias_HR.data<T>(),
           table_HB.data<T>(), bias_HR.dim(0), bias_HR.dim(1), first_relative, buckets);
  });
}

void backward(const Tensor& dtable_HB, const Tensor& dbias_HR, int64_t first_relative,
              const RelativeBuckets& buckets) {
  visit_floating(dtable_HB.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(sum_buckets<T>, blocks_for(dtable_HB.numel(), kThreads / kWarp), kThreads, 0,
           dtable_HB.data<T>(), dbias_HR.data<T>(), dbias_HR.dim(0), dbias_HR.dim(1),
           first_relative, buckets);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(RelativeBiasKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
