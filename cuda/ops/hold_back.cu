// SPDX-License-Identifier: Apache-2.0
// A token waits for the one before it: groups side by side, and within one a warp that goes from
// token to token, reading the next one's row while it works on one.
#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/hold_back.h"

namespace stmoe::gpu {
namespace {

// Experts a lane keeps the next token's probabilities of; of more they are read when they are
// needed.
constexpr int kAhead = 4;
constexpr int64_t kMostExperts = 6000;  // whose totals fit into shared memory

// One group a block of one warp; expert e is lane e % 32's. Reads p and writes y once. The totals
// are in shared memory, each touched by its lane only.
template <class T>
STMOE_KERNEL hold_group(T* y, const T* p, const int32_t* mask, int64_t tokens, int64_t experts,
                        double margin) {
  double* totals = dynamic_smem<double>();
  for (int64_t e = lane_index(); e < experts; e += kWarp) totals[e] = 0;
  const int64_t first = block_index() * tokens;
  T next[kAhead];
  const auto read_ahead = [&](int64_t n) {
    STMOE_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      const int64_t e = j * kWarp + lane_index();
      next[j] = n < first + tokens && e < experts ? p[n * experts + e] : T(0);
    }
  };
  read_ahead(first);
  for (int64_t n = first; n < first + tokens; ++n) {
    T row[kAhead];
    STMOE_UNROLL
    for (int j = 0; j < kAhead; ++j) row[j] = next[j];
    read_ahead(n + 1);
    const auto probability = [&](int64_t e) {
      T value = 0;
      STMOE_UNROLL
      for (int j = 0; j < kAhead; ++j)
        if (e / kWarp == j) value = row[j];
      return e / kWarp < kAhead ? value : p[n * experts + e];
    };
    const bool is_real = !mask || mask[n] != 0;
    double sum = 0, kept = 0;
    for (int64_t e = lane_index(); e < experts; e += kWarp) sum += totals[e];
    const double mean = warp_sum(sum) / static_cast<double>(experts);
    for (int64_t e = lane_index(); e < experts; e += kWarp) {
      // Whoever has no more than the mean does not wait, whatever the margin.
      const bool waits = is_real && totals[e] - mean > margin;
      y[n * experts + e] = waits ? T(-1e30) : T(0);
      if (!waits) kept += static_cast<double>(probability(e));
    }
    kept = warp_sum(kept);
    if (is_real && kept > 0)
      for (int64_t e = lane_index(); e < experts; e += kWarp)
        if (!(totals[e] - mean > margin)) totals[e] += static_cast<double>(probability(e)) / kept;
  }
}

void hold(const Tensor& y_NE, const Tensor& p_NE, int64_t num_groups, double margin,
          const Tensor& mask_N) {
  const int64_t tokens = p_NE.dim(0) / num_groups, experts = p_NE.dim(1);
  STMOE_CHECK(experts <= kMostExperts, "hold_back: {} experts, on a GPU at most {}", experts,
              kMostExperts);
  if (tokens == 0) return;
  visit_wide(p_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(hold_group<T>, {num_groups}, kWarp, static_cast<size_t>(experts) * sizeof(double),
           y_NE.data<T>(), p_NE.data<T>(), mask_N.defined() ? mask_N.data<int32_t>() : nullptr,
           tokens, experts, margin);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(HoldBackKernels, STMOE_GPU, {gpu::hold})

}  // namespace stmoe
