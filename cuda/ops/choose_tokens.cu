// SPDX-License-Identifier: Apache-2.0
// Per column the smallest value that is still taken is found bit by bit, from the highest: a bit
// stays set when at least as many keys as places reach it. Counting only: nothing is sorted, and
// the order of threads does not matter.
#include "cuda/device/sort_keys.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/choose_tokens.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarp;

template <class T>
struct Columns {
  const T* values_NE;
  const int32_t* mask_N;  // or null
  int64_t tokens, experts, capacity;
};

// What a thread has of its column: the rows of its slice, [begin, end).
template <class T>
struct ColumnSlice {
  const T* values;
  const int32_t* mask;
  int64_t begin, end, experts;

  STMOE_METHOD bool is_real(int64_t n) const { return !mask || mask[n] != 0; }
  STMOE_METHOD SortKey<T> key(int64_t n) const { return key_or_lowest(values[n * experts]); }
};

// The sum over the block's warps of what lanes of one number brought: `counts` and `totals` are
// shared memory of 32 * 33 and 32 numbers.
STMOE_DEVICE int column_sum(int own, int* counts, int* totals) {
  counts[lane_index() * (kWarp + 1) + warp_index()] = own;
  STMOE_SYNC_THREADS();
  const int total = warp_sum(counts[warp_index() * (kWarp + 1) + lane_index()]);
  if (lane_index() == 0) totals[warp_index()] = total;
  STMOE_SYNC_THREADS();
  return totals[lane_index()];
}

// The sum over the warps before this one.
STMOE_DEVICE int sum_before(int own, int* counts) {
  counts[lane_index() * (kWarp + 1) + warp_index()] = own;
  STMOE_SYNC_THREADS();
  int before = 0;
  for (int w = 0; w < warp_index(); ++w) before += counts[lane_index() * (kWarp + 1) + w];
  STMOE_SYNC_THREADS();
  return before;
}

// A block for 32 columns of a group, a lane for each column, a warp for each of 32 slices of the
// rows: a warp reads 128 neighbouring bytes. Passes over the group's values: one for each bit, from
// L2 (a group of 4096 tokens is 16 KB a column), and two more; writes 8 bytes a value.
template <class T>
STMOE_KERNEL choose_columns(int32_t* expert_NE, int32_t* slot_NE, Columns<T> in) {
  STMOE_SHARED(int, counts, kWarp*(kWarp + 1));
  STMOE_SHARED(int, totals, kWarp);
  using Key = SortKey<T>;
  const int64_t group = block_index(), e = block_index_y() * kWarp + lane_index();
  const int64_t first = group * in.tokens, rows = (in.tokens + kWarps - 1) / kWarps;
  const bool has_column = e < in.experts;
  const int64_t begin = warp_index() * rows < in.tokens ? warp_index() * rows : in.tokens;
  const int64_t end = begin + rows < in.tokens ? begin + rows : in.tokens;
  const ColumnSlice<T> slice = {in.values_NE + first * in.experts + (has_column ? e : 0),
                                in.mask_N ? in.mask_N + first : nullptr, begin, end, in.experts};

  int own = 0;
  for (int64_t n = begin; n < end; ++n) own += slice.is_real(n);
  const int real = column_sum(own, counts, totals);
  const int64_t take = in.capacity < real ? in.capacity : real;

  Key threshold = 0;
  for (int bit = 8 * static_cast<int>(sizeof(Key)) - 1; bit >= 0; --bit) {
    const Key candidate = threshold | Key{1} << bit;
    own = 0;
    for (int64_t n = begin; n < end; ++n) own += slice.is_real(n) && slice.key(n) >= candidate;
    if (column_sum(own, counts, totals) >= take) threshold = candidate;
  }

  int greater = 0, equal = 0;
  for (int64_t n = begin; n < end; ++n)
    if (slice.is_real(n)) {
      greater += slice.key(n) > threshold;
      equal += slice.key(n) == threshold;
    }
  const int64_t equals = take - column_sum(greater, counts, totals);  // of those, the first
  const int64_t greater_before = sum_before(greater, counts);
  int64_t equal_seen = sum_before(equal, counts);
  int64_t slot = group * in.capacity + greater_before + (equal_seen < equals ? equal_seen : equals);
  for (int64_t n = begin; n < end; ++n) {
    bool is_taken = false;
    if (take > 0 && slice.is_real(n)) {
      const Key key = slice.key(n);
      is_taken = key > threshold || (key == threshold && equal_seen++ < equals);
    }
    if (has_column) {
      const int64_t at = (first + n) * in.experts + e;
      expert_NE[at] = is_taken ? static_cast<int32_t>(e) : -1;
      slot_NE[at] = is_taken ? static_cast<int32_t>(slot) : -1;
    }
    slot += is_taken;
  }
}

template <class T>
void choose_typed(const ChosenTokens& chosen, const Tensor& values_NE, int64_t groups,
                  int64_t capacity, const Tensor& mask_N) {
  const int64_t tokens = values_NE.dim(0) / groups, experts = values_NE.dim(1);
  const Columns<T> columns = {values_NE.data<T>(),
                              mask_N.defined() ? mask_N.data<int32_t>() : nullptr, tokens, experts,
                              capacity};
  launch(choose_columns<T>, {groups, (experts + kWarp - 1) / kWarp}, kThreads, 0,
         chosen.expert_NE.data<int32_t>(), chosen.slot_NE.data<int32_t>(), columns);
}

void choose(const ChosenTokens& chosen, const Tensor& values_NE, int64_t groups, int64_t capacity,
            const Tensor& mask_N) {
  if (values_NE.dtype() == DType::f64)
    choose_typed<double>(chosen, values_NE, groups, capacity, mask_N);
  else
    choose_typed<float>(chosen, values_NE, groups, capacity, mask_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ChooseTokensKernels, STMOE_GPU, {gpu::choose})

}  // namespace stmoe
