// SPDX-License-Identifier: Apache-2.0
// How many iterations a group needs is known on the device only: a block has a group and goes on
// until it is balanced, so that nobody asks. Its matrix comes from the second-level cache, once an
// iteration. Within the group a warp has one token of as many as there are warps; the warps' column
// sums are added in order, in f64.
#include <algorithm>
#include <cmath>

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/sinkhorn.h"

namespace stmoe::gpu {
namespace {

constexpr double kEpsilon = 1e-8;
constexpr size_t kSharedBytes = 96 << 10;

// a = exp(logits - largest of the row), 0 for a token that is left out. A warp has a row.
template <class T>
STMOE_DEVICE void start_row(T* a, const T* logits, int64_t experts, bool is_real) {
  T largest = logits[0];
  for (int64_t e = lane_index(); e < experts; e += kWarp)
    largest = logits[e] > largest ? logits[e] : largest;
  largest = warp_max(largest);
  for (int64_t e = lane_index(); e < experts; e += kWarp)
    a[e] = is_real ? std::exp(logits[e] - largest) : T(0);
}

// One group a block. Shared memory: column factors [experts], then column sums [warps, experts],
// where a column is one lane's. row_factor: a value a token, on the device.
template <class T>
STMOE_KERNEL normalize_group(T* y, T* row_factor, const T* logits, const int32_t* mask,
                             int64_t tokens, int64_t experts, double tolerance,
                             int64_t max_iterations) {
  STMOE_SHARED(double, shared, 2 * kWarp);
  T* const column_factor = dynamic_smem<T>();
  T* const sums = column_factor + experts;
  T* const mine = sums + warp_index() * experts;
  const int64_t first = block_index() * tokens;
  double real = 0;
  for (int64_t t = warp_index(); t < tokens; t += block_warps()) {
    const bool is_real = !mask || mask[first + t] != 0;
    start_row(y + (first + t) * experts, logits + (first + t) * experts, experts, is_real);
    real += is_real && lane_index() == 0 ? 1 : 0;
  }
  real = block_sum(real, shared);
  for (int64_t e = thread_index(); e < experts; e += block_threads()) column_factor[e] = T(1);
  STMOE_SYNC_THREADS();

  const T share = T(1) / static_cast<T>(real > 1 ? real : 1.0);
  double change = 2 * tolerance;
  for (int64_t i = 0; i < max_iterations && change > tolerance; ++i) {
    for (int64_t e = lane_index(); e < experts; e += kWarp) mine[e] = 0;
    for (int64_t t = warp_index(); t < tokens; t += block_warps()) {
      const T* row = y + (first + t) * experts;
      T total = 0;
      for (int64_t e = lane_index(); e < experts; e += kWarp) total += column_factor[e] * row[e];
      const T factor = share / (warp_sum(total) + static_cast<T>(kEpsilon));
      for (int64_t e = lane_index(); e < experts; e += kWarp) mine[e] += factor * row[e];
      if (lane_index() == 0) row_factor[first + t] = factor;
    }
    STMOE_SYNC_THREADS();
    double moved = 0;
    for (int64_t e = thread_index(); e < experts; e += block_threads()) {
      double total = 0;
      for (int warp = 0; warp < block_warps(); ++warp)
        total += static_cast<double>(sums[warp * experts + e]);
      const double factor = 1.0 / static_cast<double>(experts) / (total + kEpsilon);
      moved += std::abs(factor - static_cast<double>(column_factor[e]));
      column_factor[e] = static_cast<T>(factor);
    }
    // Its barrier also lets the warps see the new factors and clear their sums.
    change = block_sum(moved, shared + i % 2 * kWarp) / static_cast<double>(experts);
  }

  for (int64_t t = warp_index(); t < tokens; t += block_warps())
    for (int64_t e = lane_index(); e < experts; e += kWarp)
      y[(first + t) * experts + e] *= row_factor[first + t] * column_factor[e];
}

// As many warps as have room for their column sums.
template <class T>
int warps_of(int64_t experts) {
  const auto room = static_cast<int64_t>(kSharedBytes / sizeof(T)) / experts - 1;
  STMOE_CHECK(room >= 1, "sinkhorn: {} experts do not fit on a GPU", experts);
  return static_cast<int>(std::min<int64_t>(room, 32));
}

void normalize(const Tensor& y_NE, const Tensor& logits_NE, const SinkhornOptions& options) {
  const int64_t tokens = logits_NE.dim(0) / options.num_groups, experts = logits_NE.dim(1);
  if (tokens == 0) return;
  visit_wide(logits_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor row_factor =
        Tensor::empty({logits_NE.dim(0)}, logits_NE.dtype(), logits_NE.device());
    const int warps = warps_of<T>(experts);
    launch(normalize_group<T>, {options.num_groups}, warps * kWarp,
           static_cast<size_t>((warps + 1) * experts) * sizeof(T), y_NE.data<T>(),
           row_factor.data<T>(), logits_NE.data<T>(),
           options.mask_N.defined() ? options.mask_N.data<int32_t>() : nullptr, tokens, experts,
           options.tolerance, options.max_iterations);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(SinkhornKernels, STMOE_GPU, {gpu::normalize})

}  // namespace stmoe
