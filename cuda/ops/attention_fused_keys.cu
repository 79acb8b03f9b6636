// SPDX-License-Identifier: Apache-2.0
// Gradients of keys and values: scores and weights of 16 keys a warp are computed again, transposed
// (rows are keys), dV = P^T dy and dK = dS^T Q.
#include "cuda/ops/attention_tiles.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {
inline namespace STMOE_GPU_BUILD {
namespace {

constexpr int kWarps = 4, kRows = 16 * kWarps, kThreads = kWarp * kWarps;

template <int D>
struct KeysShape {
  static constexpr int kQueries = BackwardTile<D>::kRows, kParts = kQueries / kPart;
  static constexpr int kTileElements = kQueries * (D + 8);

  // Keys and values; queries and dy of two tiles; bias, segments, lse and delta of all queries.
  static constexpr size_t bytes(int queries) {
    const auto padded = static_cast<size_t>(round_to_tile(queries));
    return (2 * kRows * (D + 8) + 4 * kTileElements) * sizeof(bf16) +
           (padded + kRows + 3 * padded + kWarp) * sizeof(float);
  }
};

struct KeyGradients {
  HeadTensor dy, dkey, dvalue;  // dkey and dvalue may be null
  const float *statistics, *delta;
};

// What the block keeps of all queries of the head.
struct QueryValues {
  const float *lse2, *delta;
  const int* segments;   // null: none
  const uint32_t* kept;  // of the head, when each weight has its own
  int64_t words = 0;
  int queries = 0;
};

// What a warp's 16 keys, two of them the lane's, are seen by.
struct KeyRows {
  int segment[2] = {}, least[2] = {};  // no query before `least` sees the key
  int first_least = 0, last_least = 0, common = 0;
  bool is_used = false;

  STMOE_METHOD void begin(const FusedSizes& n, const AttentionMask& mask, int64_t b, int first) {
    const int last = first + 15 < n.keys ? first + 15 : n.keys - 1;
    is_used = first < n.keys;
    first_least = least_of(first, mask);
    last_least = least_of(last, mask);
    for (int r = 0; r < 2; ++r) {
      const int k = first + lane_index() / 4 + 8 * r, key = k < n.keys ? k : n.keys - 1;
      least[r] = least_of(key, mask);
      if (mask.key_segments) segment[r] = mask.key_segments[b * n.keys + key];
      if (mask.key_segments && segment[r] == 0) least[r] = kLargest;
    }
    if (mask.key_segments) {
      const int one = shuffle(segment[0], 0);
      const bool is_one = ballot(segment[0] == one && segment[1] == one) == ~uint32_t{0};
      common = is_one ? one : 0;
      if (is_one && one == 0) is_used = false;
    }
  }
  STMOE_METHOD static int least_of(int key, const AttentionMask& mask) {
    const int64_t least = key - mask.query_offset;
    return mask.is_causal && least > 0 ? static_cast<int>(least) : 0;
  }
  // Whether all queries [first, first + count) see all 16.
  STMOE_METHOD bool are_seen_by_all(int first, int count, const int* segments) const {
    if (first < last_least) return false;
    if (!segments) return true;
    if (common == 0) return false;
    bool is_common = true;
    for (int i = lane_index(); i < count; i += kWarp) is_common &= segments[first + i] == common;
    return ballot(is_common) == ~uint32_t{0};
  }
};

template <int D, bool kDropsPairs>
struct GradientRows {
  KeyRows rows;
  FragmentC dkey[D / 8] = {}, dvalue[D / 8] = {};

  // kPart queries; `keys` and `values` are the warp's own rows. Where there are fewer queries, the
  // lse is infinite and the weight 0.
  STMOE_METHOD void add_part(const bf16* keys, const bf16* values, const bf16* queries,
                             const bf16* dys, int first, int first_key, const float* bias,
                             const QueryValues& all, float scale) {
    FragmentC weights[kPart / 8] = {}, dscores[kPart / 8] = {};
    add_dots<D>(weights, keys, queries);
    add_dots<D>(dscores, values, dys);
    add_bias(weights, bias);
    mask_scores(weights, first, all.segments);
    STMOE_UNROLL
    for (int n = 0; n < kPart / 8; ++n) {
      const int q = first + 8 * n + lane_index() % 4 * 2;
      const auto lse2 = load_vector<2>(all.lse2 + q), delta = load_vector<2>(all.delta + q);
      STMOE_UNROLL
      for (int e = 0; e < 2; ++e) {
        uint32_t word = ~uint32_t{0};
        if (kDropsPairs && q + e < all.queries)
          word = all.kept[(q + e) * all.words + first_key / 32] >> (first_key % 32);
        STMOE_UNROLL
        for (int r = 0; r < 2; ++r) {
          float& weight = weights[n].r[2 * r + e];
          float& gradient = dscores[n].r[2 * r + e];
          const bool is_kept = (word >> (lane_index() / 4 + 8 * r) & 1) != 0;
          const float p = fast_exp2(weight - lse2.values[e]);
          gradient = p * ((is_kept ? gradient * scale : 0.0f) - delta.values[e]);
          weight = is_kept ? p : 0.0f;
        }
      }
    }
    add_weighted<D>(dvalue, weights, dys);
    add_weighted<D>(dkey, dscores, queries);
  }

  STMOE_METHOD void mask_scores(FragmentC (&scores)[kPart / 8], int first,
                                const int* segments) const {
    if (rows.are_seen_by_all(first, kPart, segments)) return;
    STMOE_UNROLL
    for (int n = 0; n < kPart / 8; ++n) {
      const int q = first + 8 * n + lane_index() % 4 * 2;
      Vector<int, 2> ids{};
      if (segments) ids = load_vector<2>(segments + q);
      STMOE_UNROLL
      for (int e = 0; e < 2; ++e) {
        STMOE_UNROLL
        for (int r = 0; r < 2; ++r)
          if (q + e < rows.least[r] || ids.values[e] != rows.segment[r])
            scores[n].r[2 * r + e] = kMasked;
      }
    }
  }
};

// A block has 64 keys of one head of one sequence, a warp 16 of them; keys and values stay in
// shared memory, and the queries that may see them pass by in tiles with dy, one arriving while the
// other is used. 64 queries cost a warp four products: 128 mma and 80 ldmatrix at d_kv 64, twice
// that at 128. A key's sums are one warp's, in the order of the queries. Three blocks a
// multiprocessor at 168 registers and 64 KB (d_kv 64, 512 queries; without dropout of pairs nvcc 13
// keeps six words in local memory); two at 255 registers and 78 KB (d_kv 128).
template <int D, bool kDropsPairs>
STMOE_KERNEL STMOE_BLOCKS(kThreads, D == 64 ? 3 : 2)
    key_gradients(FusedInputs in, KeyGradients out) {
  using Shape = KeysShape<D>;
  constexpr int kQueries = Shape::kQueries;
  const int blocks = (in.n.keys + kRows - 1) / kRows, padded = round_to_tile(in.n.queries);
  const int64_t head = block_index() / blocks, b = head / in.n.heads, h = head % in.n.heads;
  const int first = static_cast<int>(block_index() % blocks) * kRows;
  const int end = first + kRows < in.n.keys ? first + kRows : in.n.keys;
  bf16* const keys = dynamic_smem<bf16>();
  bf16* const values = keys + kRows * (D + 8);
  bf16* const tiles = values + kRows * (D + 8);
  float* const bias = reinterpret_cast<float*>(tiles + 4 * Shape::kTileElements);
  int* const segments = reinterpret_cast<int*>(bias + padded + kRows);
  float* const lse2 = reinterpret_cast<float*>(segments + padded);
  float* const delta = lse2 + padded;
  int* const partial = reinterpret_cast<int*>(delta + padded);

  RowRange range{0, in.n.queries};
  const bool has_segments = in.mask.query_segments != nullptr, has_bias = in.mask.bias != nullptr;
  if (has_segments)
    range = load_segments(segments, in.mask.query_segments + b * in.n.queries, in.n.queries,
                          in.mask.key_segments + b * in.n.keys, first, end, partial);
  const int least = KeyRows::least_of(first, in.mask);
  range.begin = least > range.begin ? least : range.begin;
  if (has_bias)
    load_bias(bias, padded + kRows - 1, in.mask, h, first + kRows - 1 - in.mask.query_offset, -1);
  for (int i = thread_index(); i < padded; i += kThreads) {
    const int64_t at = head * in.n.queries + i;
    lse2[i] = i < in.n.queries ? lse2_of(out.statistics + 2 * at) : HUGE_VALF;
    delta[i] = i < in.n.queries ? out.delta[at] : 0.0f;
  }

  const uint32_t* const kept =
      in.kept.is_shared && in.kept.words ? in.kept.words + head * in.kept.words_per_row : nullptr;
  const auto is_kept = [&](int k) { return !kept || (kept[k / 32] >> k % 32 & 1) != 0; };
  const auto load_queries = [&](int tile, int stage) {
    bf16* to = tiles + 2 * stage * Shape::kTileElements;
    const auto is_query = [&](int q) { return q < in.n.queries; };
    load_tile<D, kQueries, kThreads>(to, in.query.of(b, h), in.query.row, tile * kQueries,
                                     is_query);
    load_tile<D, kQueries, kThreads>(to + Shape::kTileElements, out.dy.of(b, h), out.dy.row,
                                     tile * kQueries, is_query);
  };
  const int own = 16 * warp_index();
  GradientRows<D, kDropsPairs> warp;
  warp.rows.begin(in.n, in.mask, b, first + own);
  const QueryValues all{
      lse2,
      delta,
      has_segments ? segments : nullptr,
      kDropsPairs ? in.kept.words + head * in.n.queries * in.kept.words_per_row : nullptr,
      in.kept.words_per_row,
      in.n.queries};
  const float* own_bias = bias + kRows - 1 - own - lane_index() / 4 + lane_index() % 4 * 2;
  if (range.begin < range.end) {
    const int first_tile = range.begin / kQueries;
    const int last_tile = (range.end + kQueries - 1) / kQueries;
    const auto is_key = [&](int k) { return k < in.n.keys; };
    load_tile<D, kRows, kThreads>(keys, in.key.of(b, h), in.key.row, first, is_key);
    load_tile<D, kRows, kThreads>(values, in.value.of(b, h), in.value.row, first,
                                  [&](int k) { return is_key(k) && is_kept(k); });
    load_queries(first_tile, 0);
    commit_copies();
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const int stage = (tile - first_tile) % 2;
      if (tile + 1 < last_tile) load_queries(tile + 1, 1 - stage);
      commit_copies();
      wait_for_copies<1>();
      STMOE_SYNC_THREADS();
      for (int part = 0; part < Shape::kParts; ++part) {
        const int q = tile * kQueries + part * kPart;
        if (!warp.rows.is_used || q + kPart <= warp.rows.first_least) continue;
        const bf16* queries = tiles + 2 * stage * Shape::kTileElements + part * kPart * (D + 8);
        warp.add_part(keys + own * (D + 8), values + own * (D + 8), queries,
                      queries + Shape::kTileElements, q, first + own,
                      has_bias ? own_bias + q : nullptr, all, in.kept.scale);
      }
      STMOE_SYNC_THREADS();
    }
  }
  const int count = in.n.keys - first - own;
  if (out.dkey.data)
    store_rows<D>(out.dkey.of(b, h) + (first + own) * out.dkey.row, out.dkey.row, count,
                  keys + own * (D + 8), warp.dkey, 1, 1);
  if (out.dvalue.data) {
    float factor[2];
    for (int r = 0; r < 2; ++r) {
      const int k = first + own + lane_index() / 4 + 8 * r;
      factor[r] = k < in.n.keys && is_kept(k) ? in.kept.scale : 0.0f;
    }
    store_rows<D>(out.dvalue.of(b, h) + (first + own) * out.dvalue.row, out.dvalue.row, count,
                  values + own * (D + 8), warp.dvalue, factor[0], factor[1]);
  }
}

template <int D, bool kDropsPairs>
void run(const FusedInputs& in, const KeyGradients& out) {
  static_assert(KeysShape<D>::bytes(kMostFusedRows) <= kMostSharedBytes);
  const int64_t blocks = (in.n.keys + kRows - 1) / kRows;
  launch(key_gradients<D, kDropsPairs>, Grid{blocks * in.n.batch * in.n.heads, 1}, kThreads,
         KeysShape<D>::bytes(in.n.queries), in, out);
}

}  // namespace

void fused_backward_keys(const Tensor& dkey_BKHK, const Tensor& dvalue_BKHK, const Tensor& dy_BQHK,
                         const Tensor& delta_BHQ, const Tensor& statistics_BHQ2,
                         const AttentionInputs& in, const KeptWeights& kept) {
  const FusedInputs inputs = fused_inputs(in, kept);
  const KeyGradients out{head_tensor(dy_BQHK), head_tensor(dkey_BKHK), head_tensor(dvalue_BKHK),
                         statistics_BHQ2.data<float>(), delta_BHQ.data<float>()};
  const bool drops_pairs = kept.words != nullptr && !kept.is_shared;
  if (in.query_BQHK.dim(3) == 64)
    drops_pairs ? run<64, true>(inputs, out) : run<64, false>(inputs, out);
  else
    drops_pairs ? run<128, true>(inputs, out) : run<128, false>(inputs, out);
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
