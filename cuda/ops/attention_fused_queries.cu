// SPDX-License-Identifier: Apache-2.0
// Gradients of queries and of the bias: the weights are computed again from the row's log of its
// sum, P = exp(S - lse), then dS = P (dP - delta), dQ = dS K, and the bias gradient is the sum of
// dS over diagonals.
#include "cuda/ops/attention_tiles.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {
inline namespace STMOE_GPU_BUILD {
namespace {

constexpr int kWarps = 4, kRows = 16 * kWarps, kThreads = kWarp * kWarps;
// A warp's dS of 32 keys on its way to the diagonals: rows g and g + 8 of a lane are added where
// they meet, so that 8 rows of 40 columns are left. Row r, column c: diagonal c - 8 - r.
constexpr int kColumns = kPart + 8, kPiece = 8 * kColumns;

template <int D>
struct QueriesShape {
  static constexpr int kKeys = BackwardTile<D>::kRows, kParts = kKeys / kPart;
  static constexpr int kTileElements = kKeys * (D + 8), kPieces = kParts * kWarps;

  // Queries and dy; keys and values of two tiles; bias, segments and sums of diagonals of all keys.
  static constexpr size_t bytes(int keys, bool has_dbias) {
    const auto padded = static_cast<size_t>(round_to_tile(keys));
    const size_t sums = has_dbias ? padded + kRows + kPieces * kPiece + kPieces : 0;
    return (2 * kRows * (D + 8) + 4 * kTileElements) * sizeof(bf16) +
           (padded + kRows + padded + kWarp + sums) * sizeof(float);
  }
};

struct QueryGradients {
  HeadTensor dy, dquery;  // dquery may be null
  const float *statistics, *delta;
  float* partial;  // [batch, heads, blocks, length], null: no bias gradient
  int64_t length;
};

template <int D, bool kDropsPairs>
struct GradientRows {
  QueryRows rows;
  FragmentC dquery[D / 8] = {};
  float lse2[2], delta[2], scale = 1;
  int64_t row[2];  // of statistics and dropout bits

  STMOE_METHOD void begin(const FusedInputs& in, const QueryGradients& g, int64_t head, int64_t b,
                          int first) {
    rows.begin(in.n, in.mask, b, first);
    scale = in.kept.scale;
    for (int r = 0; r < 2; ++r) {
      row[r] = head * in.n.queries + rows.query[r];
      const bool is_row = first + lane_index() / 4 + 8 * r < in.n.queries;
      lse2[r] = is_row ? lse2_of(g.statistics + 2 * row[r]) : HUGE_VALF;
      delta[r] = is_row ? g.delta[row[r]] : 0.0f;
    }
  }

  // kPart keys; `piece` takes the sums for the bias, null: not wanted. `queries` and `dys`
  // are the warp's own rows.
  STMOE_METHOD void add_part(const bf16* queries, const bf16* dys, const bf16* keys,
                             const bf16* values, int first, const float* bias, const int* segments,
                             const KeptWeights& kept, float* piece) {
    FragmentC scores[kPart / 8] = {}, dscores[kPart / 8] = {};
    add_dots<D>(scores, queries, keys);
    add_dots<D>(dscores, dys, values);
    add_bias(scores, bias);
    rows.mask_scores(scores, first, segments);
    STMOE_UNROLL
    for (int r = 0; r < 2; ++r) {
      uint32_t bits[1] = {~uint32_t{0}};
      if (kDropsPairs && first / 32 < kept.words_per_row)
        bits[0] = kept.words[row[r] * kept.words_per_row + first / 32];
      STMOE_UNROLL
      for (int n = 0; n < kPart / 8; ++n) {
        STMOE_UNROLL
        for (int e = 0; e < 2; ++e) {
          const float weight = fast_exp2(scores[n].r[2 * r + e] - lse2[r]);
          float& gradient = dscores[n].r[2 * r + e];
          const float dweight = is_kept<kPart / 8>(bits, n, e) ? gradient * scale : 0.0f;
          gradient = weight * (dweight - delta[r]);
        }
      }
    }
    if (piece) store_piece(piece, dscores);
    add_weighted<D>(dquery, dscores, keys);
  }

  STMOE_METHOD void store_piece(float* piece, const FragmentC (&dscores)[kPart / 8]) const {
    float* to = piece + lane_index() / 4 * kColumns + lane_index() % 4 * 2;
    STMOE_UNROLL
    for (int n = 0; n <= kPart / 8; ++n) {
      STMOE_UNROLL
      for (int e = 0; e < 2; ++e) {
        const float above = n > 0 ? dscores[n - 1].r[e] : 0.0f;
        const float below = n < kPart / 8 ? dscores[n].r[2 + e] : 0.0f;
        to[8 * n + e] = above + below;
      }
    }
  }
};

// Adds the pieces of a tile up to the block's sums: thread d has diagonal d, key - query + kRows -
// 1, and adds in the order of warps, parts and rows.
template <class Shape>
STMOE_DEVICE void add_pieces(float* sums, const float* pieces, const int* is_filled) {
  const int d = thread_index();
  float sum = 0;
  for (int i = 0; i < Shape::kPieces; ++i) {
    const int base = d - (kRows - 1) + 8 + 16 * (i / Shape::kParts) - kPart * (i % Shape::kParts);
    if (is_filled[i] != 0 && base > -8 && base < kColumns) {
      STMOE_UNROLL
      for (int r = 0; r < 8; ++r)
        if (0 <= base + r && base + r < kColumns)
          sum += pieces[i * kPiece + r * kColumns + base + r];
    }
  }
  if (d < kRows + Shape::kKeys - 1) sums[d] += sum;
}

// A block has 64 queries of one head of one sequence, a warp 16 of them, whose query and dy stay in
// shared memory; two tiles of keys and values, one arriving while the other is used. 64 keys cost a
// warp three products: 96 mma and 64 ldmatrix at d_kv 64, twice that at 128. The bias costs a lane
// about 60 shared-memory accesses for them (20 stores without conflict, 24 to 64 loads), no
// atomics: one partial sum per diagonal and block goes to memory. Three blocks a multiprocessor at
// 166 registers and 72 KB (d_kv 64, 512 keys); two at 212 registers and 82 KB (d_kv 128).
template <int D, bool kDropsPairs>
STMOE_KERNEL STMOE_BLOCKS(kThreads, D == 64 ? 3 : 2)
    query_gradients(FusedInputs in, QueryGradients out) {
  using Shape = QueriesShape<D>;
  constexpr int kKeys = Shape::kKeys;
  const int blocks = (in.n.queries + kRows - 1) / kRows, padded = round_to_tile(in.n.keys);
  const int64_t head = block_index() / blocks, b = head / in.n.heads, h = head % in.n.heads;
  const int first = static_cast<int>(block_index() % blocks) * kRows;
  const int end = first + kRows < in.n.queries ? first + kRows : in.n.queries;
  bf16* const queries = dynamic_smem<bf16>();
  bf16* const dys = queries + kRows * (D + 8);
  bf16* const tiles = dys + kRows * (D + 8);
  float* const bias = reinterpret_cast<float*>(tiles + 4 * Shape::kTileElements);
  int* const segments = reinterpret_cast<int*>(bias + padded + kRows);
  int* const partial = segments + padded;
  float* const sums = reinterpret_cast<float*>(partial + kWarp);
  float* const pieces = sums + padded + kRows;
  int* const is_filled = reinterpret_cast<int*>(pieces + Shape::kPieces * kPiece);

  RowRange range{0, in.n.keys};
  const bool has_segments = in.mask.query_segments != nullptr, has_bias = in.mask.bias != nullptr;
  const bool has_dbias = out.partial != nullptr;
  if (has_segments)
    range = load_segments(segments, in.mask.key_segments + b * in.n.keys, in.n.keys,
                          in.mask.query_segments + b * in.n.queries, first, end, partial);
  const int limit = QueryRows::limit_of(end - 1, in.n, in.mask);
  range.end = limit < range.end ? limit : range.end;
  if (has_bias)
    load_bias(bias, padded + kRows - 1, in.mask, h, 1 - kRows - first - in.mask.query_offset, 1);
  if (has_dbias)
    for (int i = thread_index(); i < padded + kRows; i += kThreads) sums[i] = 0;

  const uint32_t* const kept =
      in.kept.is_shared && in.kept.words ? in.kept.words + head * in.kept.words_per_row : nullptr;
  const auto load_keys = [&](int tile, int stage) {
    bf16* to = tiles + 2 * stage * Shape::kTileElements;
    const auto is_key = [&](int k) { return k < in.n.keys; };
    load_tile<D, kKeys, kThreads>(to, in.key.of(b, h), in.key.row, tile * kKeys, is_key);
    // A key that all queries drop has no value.
    load_tile<D, kKeys, kThreads>(
        to + Shape::kTileElements, in.value.of(b, h), in.value.row, tile * kKeys,
        [&](int k) { return is_key(k) && (!kept || (kept[k / 32] >> k % 32 & 1) != 0); });
  };
  const int own = 16 * warp_index();
  GradientRows<D, kDropsPairs> warp;
  warp.begin(in, out, head, b, first + own);
  const float* own_bias = bias + kRows - 1 - own - lane_index() / 4 + lane_index() % 4 * 2;
  if (range.begin < range.end) {
    const int first_tile = range.begin / kKeys, last_tile = (range.end + kKeys - 1) / kKeys;
    const auto is_query = [&](int q) { return q < in.n.queries; };
    load_tile<D, kRows, kThreads>(queries, in.query.of(b, h), in.query.row, first, is_query);
    load_tile<D, kRows, kThreads>(dys, out.dy.of(b, h), out.dy.row, first, is_query);
    load_keys(first_tile, 0);
    commit_copies();
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const int stage = (tile - first_tile) % 2;
      if (tile + 1 < last_tile) load_keys(tile + 1, 1 - stage);
      commit_copies();
      wait_for_copies<1>();
      STMOE_SYNC_THREADS();
      for (int part = 0; part < Shape::kParts; ++part) {
        const int key = tile * kKeys + part * kPart, piece = Shape::kParts * warp_index() + part;
        const bool is_seen = warp.rows.is_used && key < warp.rows.most_limit;
        if (has_dbias && lane_index() == 0) is_filled[piece] = is_seen ? 1 : 0;
        if (!is_seen) continue;
        const bf16* keys = tiles + 2 * stage * Shape::kTileElements + part * kPart * (D + 8);
        warp.add_part(queries + own * (D + 8), dys + own * (D + 8), keys,
                      keys + Shape::kTileElements, key, has_bias ? own_bias + key : nullptr,
                      has_segments ? segments : nullptr, in.kept,
                      has_dbias ? pieces + piece * kPiece : nullptr);
      }
      STMOE_SYNC_THREADS();
      if (has_dbias) add_pieces<Shape>(sums + tile * kKeys, pieces, is_filled);
    }
  }
  if (warp.rows.is_used && out.dquery.data)
    store_rows<D>(out.dquery.of(b, h) + (first + own) * out.dquery.row, out.dquery.row,
                  in.n.queries - first - own, queries + own * (D + 8), warp.dquery, 1, 1);
  STMOE_SYNC_THREADS();
  if (has_dbias)
    for (int i = thread_index(); i < padded + kRows; i += kThreads)
      out.partial[block_index() * out.length + i] = sums[i];
}

template <int D, bool kDropsPairs>
void run(const FusedInputs& in, const QueryGradients& out) {
  static_assert(QueriesShape<D>::bytes(kMostFusedRows, true) <= kMostSharedBytes);
  const int64_t blocks = (in.n.queries + kRows - 1) / kRows;
  launch(query_gradients<D, kDropsPairs>, Grid{blocks * in.n.batch * in.n.heads, 1}, kThreads,
         QueriesShape<D>::bytes(in.n.keys, out.partial != nullptr), in, out);
}

}  // namespace

void fused_backward_queries(const Tensor& dquery_BQHK, const Tensor& dbias_HR,
                            const Tensor& dy_BQHK, const Tensor& delta_BHQ,
                            const Tensor& statistics_BHQ2, const AttentionInputs& in,
                            const KeptWeights& kept) {
  const FusedInputs inputs = fused_inputs(in, kept);
  const FusedSizes& n = inputs.n;
  DiagonalSums sums{Tensor(), n.batch, (n.queries + kRows - 1) / kRows, kRows,
                    round_to_tile(n.keys) + kRows};
  QueryGradients out{head_tensor(dy_BQHK),
                     head_tensor(dquery_BQHK),
                     statistics_BHQ2.data<float>(),
                     delta_BHQ.data<float>(),
                     nullptr,
                     sums.length};
  if (dbias_HR.defined()) {
    sums.partial = Tensor::empty({sums.chunks, n.heads, sums.tiles, sums.length}, DType::f32,
                                 dy_BQHK.device());
    out.partial = sums.partial.data<float>();
  }
  const bool drops_pairs = kept.words != nullptr && !kept.is_shared;
  if (in.query_BQHK.dim(3) == 64)
    drops_pairs ? run<64, true>(inputs, out) : run<64, false>(inputs, out);
  else
    drops_pairs ? run<128, true>(inputs, out) : run<128, false>(inputs, out);
  if (dbias_HR.defined()) sum_diagonals(dbias_HR, 0, n.heads, sums, in);
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
