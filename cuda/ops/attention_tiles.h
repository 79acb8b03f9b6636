// SPDX-License-Identifier: Apache-2.0
// What the fused attention kernels share (internal to cuda/ops/attention_fused_*.cu). A warp has 16
// rows of scores (queries; in the pass for keys and values: keys) and passes over the others in
// tiles of 64 rows in shared memory, which all warps of the block use. Rows of a tile are D + 8
// elements apart: ldmatrix and the stores of fragments then meet no bank twice. Scores are in units
// of log2 e, so that exp is one instruction.
#pragma once

#include "cuda/device/async_copy.h"
#include "cuda/device/math.h"
#include "cuda/device/mma.h"
#include "cuda/device/vector.h"
#include "cuda/ops/attention_parts.h"

namespace stmoe::gpu {
inline namespace STMOE_GPU_BUILD {

inline constexpr int kTile = 64;
// The backward passes have four such tiles beside two of their own rows, smaller ones at d_kv 128;
// they work them off in parts: 16 x 32 scores and gradients are 32 registers.
inline constexpr int kPart = 32;
template <int D>
struct BackwardTile {
  static constexpr int kRows = D == 64 ? kTile : kPart;
};
inline constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
inline constexpr float kMasked = -HUGE_VALF;
inline constexpr int kLargest = 0x7fffffff;

// A head's rows in [batch, length, heads, D]; strides in elements, multiples of 8.
struct HeadTensor {
  bf16* data = nullptr;
  int64_t batch = 0, row = 0, head = 0;
  STMOE_METHOD bf16* of(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

struct FusedSizes {
  int batch = 0, heads = 0, queries = 0, keys = 0;
};

struct FusedInputs {
  FusedSizes n;
  HeadTensor query, key, value;
  AttentionMask mask;
  KeptWeights kept;
};

// What an H100 gives a block; kernels need room for values of the most rows.
inline constexpr size_t kMostSharedBytes = 227 << 10;

constexpr int round_to_tile(int rows) { return (rows + kTile - 1) / kTile * kTile; }

// Rows [first, first + kRows) of a head to a tile, zeros for those that are not there.
template <int D, int kRows, int kThreads, class IsThere>
STMOE_DEVICE void load_tile(bf16* tile, const bf16* head, int64_t stride, int first,
                            const IsThere& is_there) {
  constexpr int kChunks = D / 8;
  static_assert(kRows * kChunks % kThreads == 0);
  STMOE_UNROLL
  for (int n = 0; n < kRows * kChunks / kThreads; ++n) {
    const int i = n * kThreads + thread_index(), row = i / kChunks, at = i % kChunks * 8;
    const bool has_row = is_there(first + row);
    const int64_t from = has_row ? (first + row) * stride + at : 0;
    copy_16_async(tile + row * (D + 8) + at, head + from, has_row);
  }
}

// c[16, 8 N] += a[16, D] rows^T, `rows` 8 N rows of a tile.
template <int D, int N>
STMOE_DEVICE void add_dots(FragmentC (&c)[N], const FragmentA& a, const bf16* rows, int k) {
  STMOE_UNROLL
  for (int n = 0; n < N / 2; ++n) {
    FragmentB b[2];
    load_b_of_columns(b, rows + n * 16 * (D + 8) + k * 16, D + 8);
    mma(c[2 * n], a, b[0]);
    mma(c[2 * n + 1], a, b[1]);
  }
}
template <int D, int N>
STMOE_DEVICE void add_dots(FragmentC (&c)[N], const FragmentA (&a)[D / 16], const bf16* rows) {
  STMOE_UNROLL
  for (int k = 0; k < D / 16; ++k) add_dots<D>(c, a[k], rows, k);
}
// The same with `left`, 16 rows of a tile.
template <int D, int N>
STMOE_DEVICE void add_dots(FragmentC (&c)[N], const bf16* left, const bf16* rows) {
  STMOE_UNROLL
  for (int k = 0; k < D / 16; ++k) {
    FragmentA a;
    load_a(a, left + k * 16, D + 8);
    add_dots<D>(c, a, rows, k);
  }
}

// sums[16, D] += weights[16, 8 N] rows, the weights rounded to bf16.
template <int D, int N>
STMOE_DEVICE void add_weighted(FragmentC (&sums)[D / 8], const FragmentC (&weights)[N],
                               const bf16* rows) {
  STMOE_UNROLL
  for (int k = 0; k < N / 2; ++k) {
    const FragmentA a = a_of_sums(weights[2 * k], weights[2 * k + 1]);
    STMOE_UNROLL
    for (int n = 0; n < D / 16; ++n) {
      FragmentB b[2];
      load_b_of_rows(b, rows + k * 16 * (D + 8) + n * 16, D + 8);
      mma(sums[2 * n], a, b[0]);
      mma(sums[2 * n + 1], a, b[1]);
    }
  }
}

// Writes up to 16 rows of sums, each lane's two times their factors, through the warp's own 16 rows
// of a tile: 16 bytes a lane and store.
template <int D>
STMOE_DEVICE void store_rows(bf16* to, int64_t stride, int count, bf16* tile_rows,
                             const FragmentC (&sums)[D / 8], float low_factor, float high_factor) {
  const int g = lane_index() / 4, t = lane_index() % 4;
  auto* pair = reinterpret_cast<uint32_t*>(tile_rows + g * (D + 8) + 2 * t);
  STMOE_UNROLL
  for (int n = 0; n < D / 8; ++n) {
    const float* r = sums[n].r;
    pair[n * 4] = low_factor == 0 ? 0 : pack_bf16(r[0] * low_factor, r[1] * low_factor);
    pair[n * 4 + 4 * (D + 8)] =
        high_factor == 0 ? 0 : pack_bf16(r[2] * high_factor, r[3] * high_factor);
  }
  sync_warp();
  STMOE_UNROLL
  for (int n = 0; n < 16 * D / 8 / kWarp; ++n) {
    const int i = n * kWarp + lane_index(), row = i / (D / 8), at = i % (D / 8) * 8;
    if (row < count)
      *reinterpret_cast<Pack<bf16>*>(to + row * stride + at) =
          *reinterpret_cast<const Pack<bf16>*>(tile_rows + row * (D + 8) + at);
  }
}

// The largest value of the block in every thread; `partial` is shared memory of 32 values.
STMOE_DEVICE int block_max(int value, int* partial) {
  value = warp_max(value);
  STMOE_SYNC_THREADS();
  if (lane_index() == 0) partial[warp_index()] = value;
  STMOE_SYNC_THREADS();
  return warp_max(lane_index() < block_warps() ? partial[lane_index()] : -kLargest);
}

struct RowRange {
  int begin = 0, end = 0;
};

// Brings the ids of the other side to shared memory, zeros up to a whole tile, and finds the rows
// there whose ids lie between those of the block's rows [first, end): as narrow as segments in
// order make it.
STMOE_DEVICE RowRange load_segments(int* to, const int32_t* others, int count, const int32_t* own,
                                    int first, int end, int* partial) {
  int low = kLargest, high = -kLargest;
  for (int i = first + thread_index(); i < end; i += block_threads())
    if (own[i] != 0) {
      low = own[i] < low ? own[i] : low;
      high = own[i] > high ? own[i] : high;
    }
  low = -block_max(-low, partial);
  high = block_max(high, partial);
  RowRange range{kLargest, 0};
  for (int i = thread_index(); i < round_to_tile(count); i += block_threads()) {
    const int id = i < count ? others[i] : 0;
    to[i] = id;
    if (id != 0 && low <= id && id <= high) {
      range.begin = i < range.begin ? i : range.begin;
      range.end = i + 1;
    }
  }
  range.begin = -block_max(-range.begin, partial);
  range.end = block_max(range.end, partial);
  return range;
}

// The bias of relative positions from `relative` on, each one `step` (1 or -1) further.
STMOE_DEVICE void load_bias(float* to, int count, const AttentionMask& mask, int64_t head,
                            int64_t relative, int step) {
  const float* bias = mask.bias + head * mask.num_relative;
  for (int i = thread_index(); i < count; i += block_threads()) {
    const int64_t at = relative + i * step - mask.first_relative;
    to[i] = 0 <= at && at < mask.num_relative ? bias[at] * kLog2E : 0.0f;
  }
}

// scores = log2 e (scores + bias). bias[8 n + e] is of the lane's first row and column 8 n + 2 t +
// e; its second row, 8 further, has that of 8 columns before.
template <int N>
STMOE_DEVICE void add_bias(FragmentC (&scores)[N], const float* bias) {
  if (!bias) {
    STMOE_UNROLL
    for (int n = 0; n < N; ++n)
      for (float& score : scores[n].r) score *= kLog2E;
    return;
  }
  float before[2] = {bias[-8], bias[-7]};
  STMOE_UNROLL
  for (int n = 0; n < N; ++n) {
    STMOE_UNROLL
    for (int e = 0; e < 2; ++e) {
      const float here = bias[8 * n + e];
      scores[n].r[e] = scores[n].r[e] * kLog2E + here;
      scores[n].r[2 + e] = scores[n].r[2 + e] * kLog2E + before[e];
      before[e] = here;
    }
  }
}

// Bits of the lane's columns in words of 32.
template <int N>
STMOE_DEVICE bool is_kept(const uint32_t (&words)[(N + 3) / 4], int n, int e) {
  return (words[n / 4] >> (n % 4 * 8 + lane_index() % 4 * 2 + e) & 1) != 0;
}

// What a warp's 16 queries, two of them the lane's, see of the keys.
struct QueryRows {
  int query[2] = {};    // within the head, at most the last one
  int segment[2] = {};  // when there are segments
  int limit[2] = {};    // no key at or after it
  int least_limit = 0, most_limit = 0;
  int common = 0;  // the segment of all 16, 0 when they differ
  bool is_used = false;

  STMOE_METHOD void begin(const FusedSizes& n, const AttentionMask& mask, int64_t b, int first) {
    const int last = first + 15 < n.queries ? first + 15 : n.queries - 1;
    is_used = first < n.queries;
    least_limit = limit_of(first, n, mask);
    most_limit = limit_of(last, n, mask);
    for (int r = 0; r < 2; ++r) {
      const int q = first + lane_index() / 4 + 8 * r;
      query[r] = q < n.queries ? q : n.queries - 1;
      limit[r] = limit_of(query[r], n, mask);
      if (mask.query_segments) segment[r] = mask.query_segments[b * n.queries + query[r]];
      if (mask.query_segments && segment[r] == 0) limit[r] = 0;
    }
    if (mask.query_segments) {
      const int one = shuffle(segment[0], 0);
      const bool is_one = ballot(segment[0] == one && segment[1] == one) == ~uint32_t{0};
      common = is_one ? one : 0;
      if (is_one && one == 0) most_limit = 0;
    }
  }
  STMOE_METHOD static int limit_of(int q, const FusedSizes& n, const AttentionMask& mask) {
    const int64_t end = q + 1 + mask.query_offset;
    return mask.is_causal && end < n.keys ? static_cast<int>(end) : n.keys;
  }
  // Whether all 16 see all of [first, first + count): then nothing need be masked.
  STMOE_METHOD bool sees_all(int first, int count, const int* segments) const {
    if (first + count > least_limit) return false;
    if (!segments) return true;
    if (common == 0) return false;
    bool is_common = true;
    for (int i = lane_index(); i < count; i += kWarp) is_common &= segments[first + i] == common;
    return ballot(is_common) == ~uint32_t{0};
  }
  // Scores of the keys from `first` on: minus infinity where masked out.
  template <int N>
  STMOE_METHOD void mask_scores(FragmentC (&scores)[N], int first, const int* segments) const {
    if (sees_all(first, 8 * N, segments)) return;
    STMOE_UNROLL
    for (int n = 0; n < N; ++n) {
      STMOE_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int key = first + 8 * n + lane_index() % 4 * 2 + e;
        const int id = segments ? segments[key] : 0;
        STMOE_UNROLL
        for (int r = 0; r < 2; ++r)
          if (key >= limit[r] || id != segment[r]) scores[n].r[2 * r + e] = kMasked;
      }
    }
  }
};

// Rows as the weights' exponents need them: log2 of the sum of exp, plus infinity when it sees
// nothing, so that its weights are 0.
STMOE_DEVICE float lse2_of(const float* statistics) {
  const float inverse = statistics[1];
  return inverse == 0 ? HUGE_VALF : statistics[0] * kLog2E - log2f(inverse);
}

inline HeadTensor head_tensor(const Tensor& x) {
  if (!x.defined()) return {};
  return {x.data<bf16>(), x.stride(0), x.stride(1), x.stride(2)};
}
inline FusedInputs fused_inputs(const AttentionInputs& in, const KeptWeights& kept) {
  const AttentionSizes n = attention_sizes(in);
  return {{static_cast<int>(n.batch), static_cast<int>(n.heads), static_cast<int>(n.queries),
           static_cast<int>(n.keys)},
          head_tensor(in.query_BQHK),
          head_tensor(in.key_BKHK),
          head_tensor(in.value_BKHK),
          attention_mask(in),
          kept};
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
