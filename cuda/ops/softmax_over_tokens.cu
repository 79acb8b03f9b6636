// SPDX-License-Identifier: Apache-2.0
// A group's tokens are cut into slices: their largest values and sums first, in f64, then those of
// the group, then each element. Reads the logits three times, twice from the cache.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/device/column_sums.h"
#include "cuda/device/vector.h"
#include "lib/ops/softmax_over_tokens.h"

namespace stmoe::gpu {
namespace {

// A block has 32 neighbouring columns of a slice, a warp every eighth of its tokens.
constexpr int kThreads = 256, kColumns = kWarp, kRows = kThreads / kWarp;
constexpr int64_t kSliceTokens = 128, kMostSlices = 64;

// Where a block is: [groups, slices, tiles of columns].
struct Slices {
  int64_t tokens, experts, slices, tiles;  // tokens of a group
};
struct SlicePlace {
  int64_t first, last, column, which;  // rows of the matrix; which = group * slices + slice
};
STMOE_DEVICE SlicePlace place_of(const Slices& shape) {
  const int64_t which = block_index() / shape.tiles;
  const int64_t group = which / shape.slices, slice = which % shape.slices;
  const int64_t begin = group * shape.tokens;
  return {begin + shape.tokens * slice / shape.slices,
          begin + shape.tokens * (slice + 1) / shape.slices,
          block_index() % shape.tiles * kColumns + lane_index(), which};
}

STMOE_DEVICE bool is_real(const int32_t* mask, int64_t row) { return !mask || mask[row] != 0; }

// largest and total [groups, slices, experts]: of exp(logits - largest) over the slice's tokens.
template <class T>
STMOE_KERNEL reduce_slices(T* largest, double* total, const T* logits, const int32_t* mask,
                           Slices shape) {
  STMOE_SHARED(T, most, kThreads);
  STMOE_SHARED(double, sums, kThreads);
  const SlicePlace place = place_of(shape);
  const bool is_column = place.column < shape.experts;
  T high = -std::numeric_limits<T>::infinity();
  if (is_column)
    for (int64_t row = place.first + warp_index(); row < place.last; row += kRows)
      if (is_real(mask, row)) high = std::max(high, logits[row * shape.experts + place.column]);
  most[thread_index()] = high;
  STMOE_SYNC_THREADS();
  for (int warp = 0; warp < kRows; ++warp)
    high = std::max(high, most[warp * kColumns + lane_index()]);
  double sum = 0;
  if (is_column)
    for (int64_t row = place.first + warp_index(); row < place.last; row += kRows)
      if (is_real(mask, row))
        sum += static_cast<double>(std::exp(logits[row * shape.experts + place.column] - high));
  sums[thread_index()] = sum;
  STMOE_SYNC_THREADS();
  if (is_column && warp_index() == 0) {
    for (int warp = 1; warp < kRows; ++warp) sum += sums[warp * kColumns + lane_index()];
    largest[place.which * shape.experts + place.column] = high;
    total[place.which * shape.experts + place.column] = sum;
  }
}

// One column of a group a thread: its largest value, and what makes the sum 1.
template <class T>
STMOE_KERNEL join_slices(T* group_largest, T* factor, const T* largest, const double* total,
                         int64_t columns, Slices shape) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < columns) {
    const int64_t first = i / shape.experts * shape.slices * shape.experts + i % shape.experts;
    T high = -std::numeric_limits<T>::infinity();
    for (int64_t slice = 0; slice < shape.slices; ++slice)
      high = std::max(high, largest[first + slice * shape.experts]);
    double sum = 0;
    for (int64_t slice = 0; slice < shape.slices; ++slice) {
      const int64_t at = first + slice * shape.experts;
      if (total[at] > 0) sum += total[at] * static_cast<double>(std::exp(largest[at] - high));
    }
    group_largest[i] = high;
    factor[i] = sum > 0 ? static_cast<T>(1.0 / sum) : T(0);
  }
}

// One element a thread.
template <class T>
STMOE_KERNEL write_softmax(T* p, const T* logits, const int32_t* mask, const T* largest,
                           const T* factor, int64_t count, Slices shape) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    const int64_t row = i / shape.experts;
    const int64_t at = row / shape.tokens * shape.experts + (i - row * shape.experts);
    p[i] = is_real(mask, row) ? std::exp(logits[i] - largest[at]) * factor[at] : T(0);
  }
}

// partial [groups, slices, experts]: the sums of dp p over a slice's tokens.
template <class T>
STMOE_KERNEL sum_slice_products(double* partial, const T* dp, const T* p, Slices shape) {
  STMOE_SHARED(double, sums, kThreads);
  const SlicePlace place = place_of(shape);
  const bool is_column = place.column < shape.experts;
  double sum = 0;
  if (is_column)
    for (int64_t row = place.first + warp_index(); row < place.last; row += kRows) {
      const int64_t at = row * shape.experts + place.column;
      sum += static_cast<double>(dp[at] * p[at]);
    }
  sums[thread_index()] = sum;
  STMOE_SYNC_THREADS();
  if (is_column && warp_index() == 0) {
    for (int warp = 1; warp < kRows; ++warp) sum += sums[warp * kColumns + lane_index()];
    partial[place.which * shape.experts + place.column] = sum;
  }
}

// One element a thread.
template <class T>
STMOE_KERNEL write_gradient(T* dlogits, const T* dp, const T* p, const T* shift, int64_t count,
                            Slices shape) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    const int64_t row = i / shape.experts;
    dlogits[i] =
        p[i] * (dp[i] - shift[row / shape.tokens * shape.experts + (i - row * shape.experts)]);
  }
}

Slices slices_of(const Tensor& p_NE, int64_t num_groups) {
  const int64_t tokens = p_NE.dim(0) / num_groups, experts = p_NE.dim(1);
  return {tokens, experts, std::clamp<int64_t>(tokens / kSliceTokens, 1, kMostSlices),
          blocks_for(experts, kColumns).x};
}

void forward(const Tensor& p_NE, const Tensor& logits_NE, int64_t num_groups,
             const Tensor& mask_N) {
  if (p_NE.numel() == 0) return;
  const Slices shape = slices_of(p_NE, num_groups);
  const Device device = p_NE.device();
  const Shape parts = {num_groups, shape.slices, shape.experts},
              groups = {num_groups, shape.experts};
  visit_wide(p_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor largest = Tensor::empty(parts, kDTypeOf<T>, device);
    const Tensor total = Tensor::empty(parts, DType::f64, device);
    const Tensor high = Tensor::empty(groups, kDTypeOf<T>, device);
    const Tensor factor = Tensor::empty(groups, kDTypeOf<T>, device);
    const int32_t* mask = mask_N.defined() ? mask_N.data<int32_t>() : nullptr;
    launch(reduce_slices<T>, {num_groups * shape.slices * shape.tiles}, kThreads, 0,
           largest.data<T>(), total.data<double>(), logits_NE.data<T>(), mask, shape);
    launch(join_slices<T>, blocks_for(high.numel(), kThreads), kThreads, 0, high.data<T>(),
           factor.data<T>(), largest.data<T>(), total.data<double>(), high.numel(), shape);
    launch(write_softmax<T>, blocks_for(p_NE.numel(), kThreads), kThreads, 0, p_NE.data<T>(),
           logits_NE.data<T>(), mask, high.data<T>(), factor.data<T>(), p_NE.numel(), shape);
  });
}

void backward(const Tensor& dlogits_NE, const Tensor& dp_NE, const Tensor& p_NE,
              int64_t num_groups) {
  if (p_NE.numel() == 0) return;
  const Slices shape = slices_of(p_NE, num_groups);
  visit_wide(p_NE.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor partial =
        Tensor::empty({num_groups, shape.slices, shape.experts}, DType::f64, p_NE.device());
    const Tensor shift = Tensor::empty({num_groups, shape.experts}, kDTypeOf<T>, p_NE.device());
    launch(sum_slice_products<T>, {num_groups * shape.slices * shape.tiles}, kThreads, 0,
           partial.data<double>(), dp_NE.data<T>(), p_NE.data<T>(), shape);
    sum_columns(shift.data<T>(), partial.data<double>(), num_groups, shape.slices, shape.experts);
    launch(write_gradient<T>, blocks_for(p_NE.numel(), kThreads), kThreads, 0, dlogits_NE.data<T>(),
           dp_NE.data<T>(), p_NE.data<T>(), shift.data<T>(), p_NE.numel(), shape);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(SoftmaxOverTokensKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
