// SPDX-License-Identifier: Apache-2.0
// Attention with the scores of some heads at a time in memory, [heads, batch, queries, row] with
// rows padded to whole lines (docs/design/cuda.md). Forward: S = Q K^T in f32, weights P of the
// inputs' type, y = P V. Backward: S again and dP = dy V^T in f32, then P and dS of the inputs'
// type, and three products. In bf16 12 bytes move for a score forward and 26 backward. Heads are
// taken by groups whose scores are at most kMostBytes, so that memory does not grow with the number
// of heads. Products are the vendor library's.
#include <vector>

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/ops/attention_parts.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/product.h"

namespace stmoe::gpu {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kUnit = 8;  // neighbouring keys of a lane
constexpr int64_t kMostBytes = int64_t{512} << 20;
constexpr float kNone = -HUGE_VALF;

// A group of heads.
struct Scores {
  AttentionSizes n;  // n.heads: all heads
  int64_t first_head = 0, heads = 0, row = 0;
};

// One row of scores and what its query sees.
struct ScoreRow {
  int keys = 0, limit = 0;      // keys at or after `limit` are masked out
  const float* bias = nullptr;  // of key 0
  const int32_t* segments = nullptr;
  int32_t segment = 0;
  const uint32_t* kept = nullptr;

  // Adds the bias to the scores of keys [first, first + kUnit); minus infinity where masked out.
  STMOE_METHOD void mask_scores(float* scores, int first) const {
    STMOE_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      const int k = first + j;
      const bool sees = k < limit && (!segments || segments[k] == segment);
      scores[j] = !sees ? kNone : scores[j] + (bias ? bias[k] : 0.0f);
    }
  }
  // A bit a key of [first, first + kUnit).
  STMOE_METHOD uint32_t kept_bits(int first) const {
    return kept && first < keys ? kept[first / 32] >> (first % 32) : ~uint32_t{0};
  }
};

// Of query q of head h (counted over all heads) and sequence b.
STMOE_DEVICE ScoreRow row_of(const AttentionSizes& n, const AttentionMask& mask,
                             const KeptWeights& kept, int64_t b, int64_t h, int64_t q) {
  ScoreRow row;
  const int64_t position = q + mask.query_offset;
  row.keys = row.limit = static_cast<int>(n.keys);
  if (mask.is_causal && position + 1 < n.keys) row.limit = static_cast<int>(position + 1);
  if (mask.query_segments) {
    row.segments = mask.key_segments + b * n.keys;
    row.segment = mask.query_segments[b * n.queries + q];
    if (row.segment == 0) row.limit = 0;
  }
  if (mask.bias) row.bias = mask.bias + h * mask.num_relative - position - mask.first_relative;
  if (kept.words)
    row.kept = kept.words + (kept.is_shared ? b * n.heads + h : (b * n.heads + h) * n.queries + q) *
                                kept.words_per_row;
  return row;
}

// A warp a row. Lane l has keys [8 l, 8 l + 8) of every run of 256, kEach keys in registers: 16
// bytes a load and store. Rows of up to 32 * kEach keys are read once, longer ones twice. `weights`
// may be `scores` when T is f32. Bias and segments come through the first-level cache, element by
// element, as diagonals have no alignment. What is written beyond the last key is padding.
template <class T, int kEach>
STMOE_KERNEL softmax_rows(T* weights, const float* scores, float* statistics, Scores s,
                          AttentionMask mask, KeptWeights kept) {
  constexpr int kUnits = kEach / kUnit, kPiece = kEach * kWarp;
  const int64_t index = block_index() * kWarps + warp_index();
  if (index < s.heads * s.n.batch * s.n.queries) {
    const int64_t q = index % s.n.queries, b = index / s.n.queries % s.n.batch;
    const int64_t h = s.first_head + index / s.n.queries / s.n.batch;
    const ScoreRow row = row_of(s.n, mask, kept, b, h, q);
    float x[kUnits][kUnit];
    const auto read = [&](int piece) {
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        const int first = piece + (u * kWarp + lane_index()) * kUnit;
        if (first < row.limit) load_values<kUnit>(x[u], scores + index * s.row + first);
      }
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u)
        row.mask_scores(x[u], piece + (u * kWarp + lane_index()) * kUnit);
    };
    float most = kNone, total = 0, shift = 0;
    for (int piece = 0; piece < row.limit; piece += kPiece) {
      read(piece);
      float high = most, sum = 0;
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u)
        for (float score : x[u]) high = score > high ? score : high;
      high = warp_max(high);
      shift = high == kNone ? 0.0f : high;
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u)
        for (float& score : x[u]) sum += score = expf(score - shift);
      total = total * expf(most - shift) + warp_sum(sum);
      most = high;
    }
    const float inverse = total == 0 ? 0.0f : 1 / total;
    if (lane_index() == 0) {
      float* to = statistics + ((b * s.n.heads + h) * s.n.queries + q) * 2;
      to[0] = inverse == 0 ? 0.0f : most;
      to[1] = inverse;
    }
    for (int piece = 0; piece < row.keys; piece += kPiece) {
      if (row.limit > kPiece) {
        read(piece);
        STMOE_UNROLL
        for (int u = 0; u < kUnits; ++u)
          for (float& score : x[u]) score = expf(score - shift);
      }
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        const int first = piece + (u * kWarp + lane_index()) * kUnit;
        if (first >= row.keys) continue;
        const uint32_t bits = row.kept_bits(first);
        STMOE_UNROLL
        for (int j = 0; j < kUnit; ++j) {
          const bool is_on = first + j < row.limit && (bits >> j & 1) != 0;
          x[u][j] = is_on ? x[u][j] * inverse * kept.scale : 0.0f;
        }
        store_values<kUnit>(weights + index * s.row + first, x[u]);
      }
    }
  }
}

struct GradientWork {
  int64_t pieces, chunks, chunk;  // of keys; of sequences, `chunk` each
};

// A warp has 32 * kEach keys of query q of head h and goes over a chunk of sequences in order: the
// sum over them of each pair's dS stays in the lane that owns the pair, and is written once, in
// f32. Reads S and dP, writes P (dropped out) and dS, which may be in their places when T is f32.
// 16 bytes a lane and access; 16 keys a lane.
template <class T, int kEach>
STMOE_KERNEL STMOE_BLOCKS(kThreads, 2)
    score_gradients(T* weights, T* dscores, float* partial, const float* scores,
                    const float* dweights, const float* statistics, const float* delta, Scores s,
                    GradientWork work, AttentionMask mask, KeptWeights kept) {
  constexpr int kUnits = kEach / kUnit;
  const int64_t index = block_index() * kWarps + warp_index();
  if (index < work.chunks * s.heads * s.n.queries * work.pieces) {
    const int64_t piece = index % work.pieces, q = index / work.pieces % s.n.queries;
    const int64_t of_chunk = index / work.pieces / s.n.queries;  // chunk * heads + head
    const int64_t head = of_chunk % s.heads, h = s.first_head + head;
    const int keys = static_cast<int>(s.n.keys);
    const int first_key = static_cast<int>(piece) * kEach * kWarp + lane_index() * kUnit;
    const int64_t begin = of_chunk / s.heads * work.chunk;
    const int64_t end = begin + work.chunk < s.n.batch ? begin + work.chunk : s.n.batch;
    float sums[kUnits][kUnit] = {};
    for (int64_t b = begin; b < end; ++b) {
      const ScoreRow row = row_of(s.n, mask, kept, b, h, q);
      const int64_t place = (b * s.n.heads + h) * s.n.queries + q;
      const float most = statistics[2 * place], inverse = statistics[2 * place + 1];
      const float shift = delta[place];
      const int64_t at = ((head * s.n.batch + b) * s.n.queries + q) * s.row;
      STMOE_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        const int first = first_key + u * kWarp * kUnit;
        if (first >= keys) continue;
        float x[kUnit], gradient[kUnit];
        load_values<kUnit>(x, scores + at + first);
        load_values<kUnit>(gradient, dweights + at + first);
        row.mask_scores(x, first);
        const uint32_t bits = row.kept_bits(first);
        STMOE_UNROLL
        for (int j = 0; j < kUnit; ++j) {
          const bool sees = x[j] != kNone;
          const float keep = (bits >> j & 1) != 0 ? kept.scale : 0.0f;
          const float weight = sees ? expf(x[j] - most) * inverse : 0.0f;
          gradient[j] = sees ? weight * (gradient[j] * keep - shift) : 0.0f;
          sums[u][j] += gradient[j];
          x[j] = weight * keep;
        }
        store_values<kUnit>(weights + at + first, x);
        store_values<kUnit>(dscores + at + first, gradient);
      }
    }
    if (partial)
      for (int u = 0; u < kUnits; ++u) {
        const int first = first_key + u * kWarp * kUnit;
        if (first < keys)
          store_values<kUnit>(partial + (of_chunk * s.n.queries + q) * s.row + first, sums[u]);
      }
  }
}

// Calls f with the element type; f32 or bf16.
template <class F>
void visit_type(DType dtype, F&& f) {
  if (dtype == DType::bf16)
    f(bf16{});
  else
    f(float{});
}

int64_t padded_row(int64_t keys) {
  const int64_t step = keys >= 64 ? 64 : kUnit;
  return (keys + step - 1) / step * step;
}

// As many heads as fit kMostBytes, at least one.
Scores scores_of(const AttentionInputs& in) {
  Scores s;
  s.n = attention_sizes(in);
  s.row = padded_row(s.n.keys);
  const int64_t bytes = s.n.batch * s.n.queries * s.row * static_cast<int64_t>(sizeof(float));
  s.heads = bytes == 0 ? s.n.heads : kMostBytes / bytes;
  s.heads = s.heads < 1 ? 1 : s.heads > s.n.heads ? s.n.heads : s.heads;
  return s;
}

Tensor empty_scores(const Scores& s, DType dtype, const AttentionInputs& in) {
  return Tensor::empty({s.heads, s.n.batch, s.n.queries, s.row}, dtype, in.query_BQHK.device());
}
// Of the inputs' type; the f32 array itself when that is f32.
Tensor empty_weights(const Scores& s, const Tensor& scores, const AttentionInputs& in) {
  return in.query_BQHK.dtype() == DType::f32 ? scores : empty_scores(s, in.query_BQHK.dtype(), in);
}

// The group that begins at a head; the last may be smaller.
Scores group_at(Scores s, int64_t first_head) {
  s.first_head = first_head;
  if (s.heads > s.n.heads - first_head) s.heads = s.n.heads - first_head;
  return s;
}

// One batch of matrices a head over the sequences; of a single sequence, one over the heads.
std::vector<MatrixView> head_views(const Scores& s, MatrixView first, int64_t batch_stride,
                                   int64_t head_stride) {
  const bool is_single = s.n.batch == 1;
  first.batch = is_single ? s.heads : s.n.batch;
  first.batch_stride = is_single ? head_stride : batch_stride;
  std::vector<MatrixView> views(static_cast<size_t>(is_single ? 1 : s.heads), first);
  for (size_t i = 0; i < views.size(); ++i)
    views[i].data +=
        static_cast<int64_t>(i) * head_stride * static_cast<int64_t>(size_of(first.dtype));
  return views;
}

// The heads of the group in x [batch, length, heads, width].
std::vector<MatrixView> views_of(const Scores& s, const Tensor& x) {
  const Tensor group = x.slice(2, s.first_head, s.first_head + s.heads);
  const MatrixView first{group.raw(), x.dtype(),   1, x.dim(1),  x.dim(3),
                         0,           x.stride(1), 1, x.device()};
  return head_views(s, first, x.stride(0), x.stride(2));
}

std::vector<MatrixView> score_views(const Scores& s, const Tensor& scores) {
  const MatrixView first{scores.raw(),   scores.dtype(), 1, s.n.queries, s.n.keys, 0, s.row, 1,
                         scores.device()};
  return head_views(s, first, s.n.queries * s.row, s.n.batch * s.n.queries * s.row);
}

std::vector<MatrixView> transposed(std::vector<MatrixView> views) {
  for (MatrixView& view : views) view = view.transposed();
  return views;
}

void multiply(const std::vector<MatrixView>& c, const std::vector<MatrixView>& a,
              const std::vector<MatrixView>& b) {
  std::vector<Product> list;
  for (size_t i = 0; i < c.size(); ++i) list.push_back({c[i], a[i], b[i]});
  products(list);
}

void softmax(const Scores& s, const Tensor& weights, const Tensor& scores, const Tensor& statistics,
             const AttentionMask& mask, const KeptWeights& kept) {
  visit_type(weights.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto run = [&](auto kernel) {
      launch(kernel, blocks_for(s.heads * s.n.batch * s.n.queries, kWarps), kThreads, 0,
             weights.data<T>(), scores.data<float>(), statistics.data<float>(), s, mask, kept);
    };
    if (s.n.keys <= 256)
      run(softmax_rows<T, 8>);
    else if (s.n.keys <= 512)
      run(softmax_rows<T, 16>);
    else
      run(softmax_rows<T, 32>);
  });
}

constexpr int kKeysOfLane = 16;

// Without bias gradient every sequence is a chunk; with it, so few chunks that the partial sums
// stay small and so many that there are warps for every multiprocessor.
GradientWork work_of(const Scores& s, bool has_dbias) {
  constexpr int64_t kEnoughWarps = 8192;
  GradientWork work{(s.n.keys + kKeysOfLane * kWarp - 1) / (kKeysOfLane * kWarp), s.n.batch, 1};
  if (!has_dbias || s.n.batch == 0) return work;
  const int64_t warps = s.heads * s.n.queries * work.pieces;
  int64_t chunks = warps == 0 ? 1 : (kEnoughWarps + warps - 1) / warps;
  if (chunks > s.n.batch) chunks = s.n.batch;
  work.chunk = (s.n.batch + chunks - 1) / chunks;
  work.chunks = (s.n.batch + work.chunk - 1) / work.chunk;
  return work;
}

struct Gradients {
  const Tensor &dquery, &dkey, &dvalue, &dbias, &dy, &delta, &statistics;
};

struct Temporaries {
  Tensor scores, dweights;  // f32
  Tensor weights, dscores;  // of the inputs' type
};

void group_backward(const Scores& s, const Temporaries& t, const Gradients& g,
                    const AttentionInputs& in, const KeptWeights& kept) {
  const auto weights = score_views(s, t.weights), dscores = score_views(s, t.dscores);
  multiply(score_views(s, t.scores), views_of(s, in.query_BQHK),
           transposed(views_of(s, in.key_BKHK)));
  multiply(score_views(s, t.dweights), views_of(s, g.dy), transposed(views_of(s, in.value_BKHK)));
  const GradientWork work = work_of(s, g.dbias.defined());
  DiagonalSums sums{Tensor(), work.chunks, s.n.queries, 1, s.row};
  if (g.dbias.defined())
    sums.partial =
        Tensor::empty({work.chunks, s.heads, s.n.queries, s.row}, DType::f32, t.scores.device());
  visit_type(t.weights.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(score_gradients<T, kKeysOfLane>,
           blocks_for(work.chunks * s.heads * s.n.queries * work.pieces, kWarps), kThreads, 0,
           t.weights.data<T>(), t.dscores.data<T>(),
           g.dbias.defined() ? sums.partial.data<float>() : nullptr, t.scores.data<float>(),
           t.dweights.data<float>(), g.statistics.data<float>(), g.delta.data<float>(), s, work,
           attention_mask(in), kept);
  });
  if (g.dbias.defined()) sum_diagonals(g.dbias, s.first_head, s.heads, sums, in);
  if (g.dvalue.defined()) multiply(views_of(s, g.dvalue), transposed(weights), views_of(s, g.dy));
  if (g.dquery.defined()) multiply(views_of(s, g.dquery), dscores, views_of(s, in.key_BKHK));
  if (g.dkey.defined())
    multiply(views_of(s, g.dkey), transposed(dscores), views_of(s, in.query_BQHK));
}

}  // namespace

inline namespace STMOE_GPU_BUILD {

void materialised_forward(const Tensor& y_BQHK, const Tensor& statistics_BHQ2,
                          const AttentionInputs& in) {
  const Scores all = scores_of(in);
  const Tensor scores = empty_scores(all, DType::f32, in), weights = empty_weights(all, scores, in);
  const KeptBits bits = draw_kept_bits(in);
  for (int64_t h = 0; h < all.n.heads; h += all.heads) {
    const Scores s = group_at(all, h);
    multiply(score_views(s, scores), views_of(s, in.query_BQHK),
             transposed(views_of(s, in.key_BKHK)));
    softmax(s, weights, scores, statistics_BHQ2, attention_mask(in), bits.kept);
    multiply(views_of(s, y_BQHK), score_views(s, weights), views_of(s, in.value_BKHK));
  }
}

void materialised_backward(const Tensor& dquery_BQHK, const Tensor& dkey_BKHK,
                           const Tensor& dvalue_BKHK, const Tensor& dbias_HR, const Tensor& dy_BQHK,
                           const Tensor& delta_BHQ, const Tensor& statistics_BHQ2,
                           const AttentionInputs& in) {
  const Scores all = scores_of(in);
  const Tensor scores = empty_scores(all, DType::f32, in);
  const Tensor dweights = empty_scores(all, DType::f32, in);
  const Temporaries temporaries{scores, dweights, empty_weights(all, scores, in),
                                empty_weights(all, dweights, in)};
  const KeptBits bits = draw_kept_bits(in);
  const Gradients gradients{dquery_BQHK, dkey_BKHK, dvalue_BKHK,    dbias_HR,
                            dy_BQHK,     delta_BHQ, statistics_BHQ2};
  for (int64_t h = 0; h < all.n.heads; h += all.heads)
    group_backward(group_at(all, h), temporaries, gradients, in, bits.kept);
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
