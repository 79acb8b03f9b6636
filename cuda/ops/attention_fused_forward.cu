// SPDX-License-Identifier: Apache-2.0
// Attention forward in one kernel (Dao, "FlashAttention-2", 2023): scores never leave the
// registers; a row's maximum and sum are carried from tile to tile.
#include "cuda/ops/attention_tiles.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {
inline namespace STMOE_GPU_BUILD {
namespace {

template <int D>
struct ForwardShape {
  static constexpr int kWarps = D == 64 ? 8 : 4, kRows = 16 * kWarps, kThreads = kWarp * kWarps;
  static constexpr int kTileElements = kTile * (D + 8);

  // Queries; keys and values of two tiles; bias, segments and dropout bits of all keys.
  static constexpr size_t bytes(int keys) {
    const auto padded = static_cast<size_t>(round_to_tile(keys));
    return (kRows * (D + 8) + 4 * kTileElements) * sizeof(bf16) +
           (padded + kRows + padded + padded / 32 + kWarp) * sizeof(float);
  }
};

struct ForwardOutputs {
  HeadTensor y;
  float* statistics;
};

// The registers of a warp's 16 queries.
template <int D>
struct ForwardRows {
  QueryRows rows;
  FragmentA query[D / 16];
  FragmentC sums[D / 8] = {};
  float most[2] = {kMasked, kMasked}, total[2] = {};  // of the lane's columns

  // `own_bits` null: no dropout, or the same for all queries.
  STMOE_METHOD void add_tile(const bf16* keys, const bf16* values, int first, const float* bias,
                             const int* segments, const uint32_t* own_bits, int words) {
    FragmentC scores[kTile / 8] = {};
    add_dots<D>(scores, query, keys);
    add_bias(scores, bias);
    rows.mask_scores(scores, first, segments);
    STMOE_UNROLL
    for (int r = 0; r < 2; ++r) to_weights(scores, r);
    if (own_bits) drop(scores, own_bits, words, first);
    add_weighted<D>(sums, scores, values);
  }

  // Scores of one of the lane's rows become exp(score - maximum); sums so far are rescaled.
  STMOE_METHOD void to_weights(FragmentC (&scores)[kTile / 8], int r) {
    float high = most[r];
    STMOE_UNROLL
    for (int n = 0; n < kTile / 8; ++n) {
      high = fmaxf(high, fmaxf(scores[n].r[2 * r], scores[n].r[2 * r + 1]));
    }
    high = fmaxf(high, shuffle_xor(high, 1));
    high = fmaxf(high, shuffle_xor(high, 2));
    const float shift = high == kMasked ? 0.0f : high, scale = fast_exp2(most[r] - shift);
    float sum = 0;
    STMOE_UNROLL
    for (int n = 0; n < kTile / 8; ++n) {
      STMOE_UNROLL
      for (int e = 0; e < 2; ++e) {
        float& score = scores[n].r[2 * r + e];
        score = fast_exp2(score - shift);
        sum += score;
      }
    }
    total[r] = total[r] * scale + sum;
    most[r] = high;
    STMOE_UNROLL
    for (int n = 0; n < D / 8; ++n) {
      sums[n].r[2 * r] *= scale;
      sums[n].r[2 * r + 1] *= scale;
    }
  }

  STMOE_METHOD void drop(FragmentC (&weights)[kTile / 8], const uint32_t* own_bits, int words,
                         int first) const {
    STMOE_UNROLL
    for (int r = 0; r < 2; ++r) {
      uint32_t bits[2];
      STMOE_UNROLL
      for (int i = 0; i < 2; ++i)
        bits[i] =
            first / 32 + i < words ? own_bits[int64_t{rows.query[r]} * words + first / 32 + i] : 0;
      STMOE_UNROLL
      for (int n = 0; n < kTile / 8; ++n) {
        STMOE_UNROLL
        for (int e = 0; e < 2; ++e)
          if (!is_kept<kTile / 8>(bits, n, e)) weights[n].r[2 * r + e] = 0;
      }
    }
  }

  STMOE_METHOD void finish(const FusedInputs& in, const ForwardOutputs& out, int64_t b, int64_t h,
                           int first, bf16* tile_rows) {
    float factor[2];
    STMOE_UNROLL
    for (int r = 0; r < 2; ++r) {
      total[r] += shuffle_xor(total[r], 1);
      total[r] += shuffle_xor(total[r], 2);
      const float inverse = total[r] == 0 ? 0.0f : 1 / total[r];
      factor[r] = inverse * in.kept.scale;
      const int q = first + lane_index() / 4 + 8 * r;
      if (q < in.n.queries && lane_index() % 4 == 0) {
        float* to = out.statistics + ((b * in.n.heads + h) * in.n.queries + q) * 2;
        to[0] = inverse == 0 ? 0.0f : most[r] * kLn2;
        to[1] = inverse;
      }
    }
    store_rows<D>(out.y.of(b, h) + first * out.y.row, out.y.row, in.n.queries - first, tile_rows,
                  sums, factor[0], factor[1]);
  }
};

// A block has kRows queries of one head of one sequence, a warp 16 of them; blocks of a head are
// neighbours, so that its keys and values are read from memory once and then from the second-level
// cache (Q / kRows times 4 D bytes a key). Two tiles of keys and values: one arrives while the
// other is used. d_kv 64: 8 warps, two blocks a multiprocessor at 128 registers (nvcc 13 keeps
// about ten words in local memory), 60 KB at 512 keys; a tile costs a warp 64 mma, 32 ldmatrix and
// about 500 other instructions, 300 more where something is masked. d_kv 128: 4 warps, two blocks
// at 244 registers, 92 KB.
template <int D>
STMOE_KERNEL STMOE_BLOCKS(ForwardShape<D>::kThreads, 2) attend(FusedInputs in, ForwardOutputs out) {
  using Shape = ForwardShape<D>;
  constexpr int kRows = Shape::kRows, kThreads = Shape::kThreads;
  const int blocks = (in.n.queries + kRows - 1) / kRows, padded = round_to_tile(in.n.keys);
  const int64_t head = block_index() / blocks, b = head / in.n.heads, h = head % in.n.heads;
  const int first = static_cast<int>(block_index() % blocks) * kRows;
  const int end = first + kRows < in.n.queries ? first + kRows : in.n.queries;
  bf16* const queries = dynamic_smem<bf16>();
  bf16* const tiles = queries + kRows * (D + 8);
  float* const bias = reinterpret_cast<float*>(tiles + 4 * Shape::kTileElements);
  int* const segments = reinterpret_cast<int*>(bias + padded + kRows);
  auto* const kept = reinterpret_cast<uint32_t*>(segments + padded);
  int* const partial = reinterpret_cast<int*>(kept + padded / 32);

  RowRange range{0, in.n.keys};
  const bool has_segments = in.mask.query_segments != nullptr, has_bias = in.mask.bias != nullptr;
  if (has_segments)
    range = load_segments(segments, in.mask.key_segments + b * in.n.keys, in.n.keys,
                          in.mask.query_segments + b * in.n.queries, first, end, partial);
  const int limit = QueryRows::limit_of(end - 1, in.n, in.mask);
  range.end = limit < range.end ? limit : range.end;
  if (has_bias)
    load_bias(bias, padded + kRows - 1, in.mask, h, 1 - kRows - first - in.mask.query_offset, 1);
  const bool drops_keys = in.kept.words != nullptr && in.kept.is_shared;
  if (drops_keys)
    for (int i = thread_index(); i < in.kept.words_per_row; i += kThreads)
      kept[i] = in.kept.words[head * in.kept.words_per_row + i];
  STMOE_SYNC_THREADS();

  const auto load_keys = [&](int tile, int stage) {
    bf16* to = tiles + 2 * stage * Shape::kTileElements;
    const auto is_key = [&](int k) { return k < in.n.keys; };
    load_tile<D, kTile, kThreads>(to, in.key.of(b, h), in.key.row, tile * kTile, is_key);
    // A key that all queries drop has no value.
    load_tile<D, kTile, kThreads>(
        to + Shape::kTileElements, in.value.of(b, h), in.value.row, tile * kTile,
        [&](int k) { return is_key(k) && (!drops_keys || (kept[k / 32] >> k % 32 & 1) != 0); });
  };
  const int warp_first = first + 16 * warp_index();
  bf16* const own_rows = queries + 16 * warp_index() * (D + 8);
  ForwardRows<D> warp;
  warp.rows.begin(in.n, in.mask, b, warp_first);
  const bool drops_pairs = in.kept.words != nullptr && !in.kept.is_shared;
  const float* own_bias =
      bias + kRows - 1 - 16 * warp_index() - lane_index() / 4 + lane_index() % 4 * 2;
  const int first_tile = range.begin / kTile, last_tile = (range.end + kTile - 1) / kTile;
  if (range.begin < range.end) {
    load_tile<D, kRows, kThreads>(queries, in.query.of(b, h), in.query.row, first,
                                  [&](int q) { return q < in.n.queries; });
    load_keys(first_tile, 0);
    commit_copies();
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const int stage = (tile - first_tile) % 2;
      if (tile + 1 < last_tile) load_keys(tile + 1, 1 - stage);
      commit_copies();
      wait_for_copies<1>();
      STMOE_SYNC_THREADS();
      if (tile == first_tile) {
        STMOE_UNROLL
        for (int k = 0; k < D / 16; ++k) load_a(warp.query[k], own_rows + k * 16, D + 8);
      }
      const bf16* keys = tiles + 2 * stage * Shape::kTileElements;
      if (warp.rows.is_used && tile * kTile < warp.rows.most_limit)
        warp.add_tile(
            keys, keys + Shape::kTileElements, tile * kTile,
            has_bias ? own_bias + tile * kTile : nullptr, has_segments ? segments : nullptr,
            drops_pairs ? in.kept.words + head * in.n.queries * in.kept.words_per_row : nullptr,
            static_cast<int>(in.kept.words_per_row));
      STMOE_SYNC_THREADS();
    }
  }
  if (warp.rows.is_used) warp.finish(in, out, b, h, warp_first, own_rows);
}

template <int D>
void run(const FusedInputs& in, const ForwardOutputs& out) {
  static_assert(ForwardShape<D>::bytes(kMostFusedRows) <= kMostSharedBytes);
  using Shape = ForwardShape<D>;
  const int64_t blocks = (in.n.queries + Shape::kRows - 1) / Shape::kRows;
  launch(attend<D>, Grid{blocks * in.n.batch * in.n.heads, 1}, Shape::kThreads,
         Shape::bytes(in.n.keys), in, out);
}

}  // namespace

void fused_forward(const Tensor& y_BQHK, const Tensor& statistics_BHQ2, const AttentionInputs& in) {
  const KeptBits bits = draw_kept_bits(in);
  const FusedInputs inputs = fused_inputs(in, bits.kept);
  const ForwardOutputs out{head_tensor(y_BQHK), statistics_BHQ2.data<float>()};
  if (y_BQHK.dim(3) == 64)
    run<64>(inputs, out);
  else
    run<128>(inputs, out);
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
