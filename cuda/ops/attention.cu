// SPDX-License-Identifier: Apache-2.0
// Which way attention goes, and what both ways need: dropout bits, dy . y of every row, the log of
// the sums, and the bias gradient added up over diagonals.
#include "cuda/device/warp.h"
#include "cuda/ops/attention_parts.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// A thread a word: the bits of 32 keys of one row, from 8 or 9 counter blocks. About 80
// instructions for 4 keys and 1/8 byte written a key: bound by arithmetic.
STMOE_KERNEL keep_bits(uint32_t* words, int64_t num_words, int64_t words_per_row, int64_t keys,
                       uint64_t first_index, RandomKey key, uint32_t threshold) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < num_words) {
    const int64_t row = i / words_per_row, first_key = i % words_per_row * 32;
    const int64_t count = keys - first_key < 32 ? keys - first_key : 32;
    const uint64_t begin = first_index + static_cast<uint64_t>(row * keys + first_key);
    uint32_t word = 0;
    for (uint64_t block = begin / 4; block * 4 < begin + static_cast<uint64_t>(count); ++block) {
      const auto random = philox4x32(key, block);
      for (uint64_t j = 0; j < 4; ++j) {
        const int64_t at = static_cast<int64_t>(block * 4 + j - begin);
        if (0 <= at && at < count && (random[j] >> 8) >= threshold) word |= uint32_t{1} << at;
      }
    }
    words[i] = word;
  }
}

// Eight lanes a row, rows in the order of y's memory: 16 bytes a lane and load where rows are
// aligned (`is_vector`), else an element. Reads 2 sizes of T an element, writes 4 bytes a row.
template <class T>
STMOE_KERNEL row_dots(float* delta, const T* dy, const T* y, const float* dlse, AttentionSizes n,
                      int64_t dy_batch, int64_t dy_row, int64_t dy_head, bool is_vector) {
  constexpr int kLanes = 8, kPack = Pack<T>::kSize;
  const int64_t row = block_index() * (kThreads / kLanes) + thread_index() / kLanes;
  const int lane = thread_index() % kLanes;
  const bool is_row = row < n.batch * n.queries * n.heads;
  const int64_t h = row % n.heads, q = row / n.heads % n.queries, b = row / n.heads / n.queries;
  float sum = 0;
  if (is_row) {
    const T* a = dy + b * dy_batch + q * dy_row + h * dy_head;
    const T* c = y + row * n.width;
    if (is_vector) {
      for (int64_t i = lane * kPack; i < n.width; i += kLanes * kPack) {
        const auto left = *reinterpret_cast<const Pack<T>*>(a + i);
        const auto right = *reinterpret_cast<const Pack<T>*>(c + i);
        for (int j = 0; j < kPack; ++j) sum += load_as(left.values[j]) * load_as(right.values[j]);
      }
    } else {
      for (int64_t i = lane; i < n.width; i += kLanes) sum += load_as(a[i]) * load_as(c[i]);
    }
  }
  for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  if (is_row && lane == 0) {
    const int64_t to = (b * n.heads + h) * n.queries + q;
    delta[to] = dlse ? sum - dlse[to] : sum;
  }
}

// A thread a row: 8 bytes read, 4 written.
STMOE_KERNEL lse_of_rows(float* lse, const float* statistics, int64_t count) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < count)
    lse[i] =
        statistics[2 * i + 1] == 0 ? -HUGE_VALF : statistics[2 * i] - logf(statistics[2 * i + 1]);
}

struct SumShape {
  int64_t heads, length;
  int rows, tiles, tile_rows, width;  // rows: chunks * tiles; width: elements of a row in use
};

constexpr int kSumThreads = 1024, kSumWarps = kSumThreads / kWarp;

// A block has 32 neighbouring relative positions of a head, a lane each; its 32 warps take every
// 32nd row of partial sums, four loads in flight, and their sums are added in order. Neighbouring
// positions lie side by side in a row: 128 bytes a warp and load, each partial sum is read once.
STMOE_KERNEL add_diagonals(float* dbias, const float* partial, SumShape n, int64_t num_relative,
                           int64_t first_relative, int64_t query_offset) {
  constexpr int kLoads = 4;
  STMOE_SHARED(float, sums, kSumThreads);
  const int64_t r = block_index() * kWarp + lane_index(), h = block_index_y();
  // Of the first tile; each further one has it tile_rows later.
  const int64_t first_at = first_relative + r + n.tile_rows - 1 + query_offset;
  float sum = 0;
  for (int begin = warp_index(); begin < n.rows; begin += kLoads * kSumWarps) {
    float values[kLoads];
    STMOE_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int row = begin + i * kSumWarps, chunk = row / n.tiles, tile = row % n.tiles;
      const int64_t at = first_at + tile * n.tile_rows;
      const bool has_value = row < n.rows && r < num_relative && 0 <= at && at < n.width;
      values[i] =
          has_value ? partial[((chunk * n.heads + h) * n.tiles + tile) * n.length + at] : 0.0f;
    }
    STMOE_UNROLL
    for (int i = 0; i < kLoads; ++i) sum += values[i];
  }
  sums[thread_index()] = sum;
  STMOE_SYNC_THREADS();
  if (warp_index() == 0 && r < num_relative) {
    for (int w = 1; w < kSumWarps; ++w) sum += sums[w * kWarp + lane_index()];
    dbias[h * num_relative + r] = sum;
  }
}

bool is_fused(const AttentionInputs& in) {
  if (in.options.method == AttentionMethod::materialised) return false;
  if (is_fused_offered(in)) return true;
  if (in.options.method == AttentionMethod::automatic) return false;
  throw UsageError(
      format("fused attention needs bf16, a d_kv of 64 or 128, and at most 8192 queries and keys; "
             "the query is {} [{}, {}, {}, {}], and there are {} keys; take auto or materialised",
             std::string(name_of(in.query_BQHK.dtype())), in.query_BQHK.dim(0),
             in.query_BQHK.dim(1), in.query_BQHK.dim(2), in.query_BQHK.dim(3), in.key_BKHK.dim(1)));
}

bool has_aligned_rows(const Tensor& x) {
  for (int i = 0; i < 3; ++i)
    if (x.dim(i) > 1 && x.stride(i) % 8 != 0) return false;
  return reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0;
}

void forward(const Tensor& y_BQHK, const Tensor& statistics_BHQ2, const AttentionInputs& in) {
  STMOE_CHECK(in.query_BQHK.dtype() != DType::f64, "attention: f64 runs on the CPU only");
  if (is_fused(in))
    fused_forward(y_BQHK, statistics_BHQ2, in);
  else
    materialised_forward(y_BQHK, statistics_BHQ2, in);
}

void backward(const Tensor& dquery_BQHK, const Tensor& dkey_BKHK, const Tensor& dvalue_BKHK,
              const Tensor& dbias_HR, const Tensor& dy_BQHK, const Tensor& dlse_BHQ,
              const Tensor& y_BQHK, const Tensor& statistics_BHQ2, const AttentionInputs& in) {
  const Tensor delta = attention_delta(dy_BQHK, y_BQHK, dlse_BHQ);
  if (!is_fused(in))
    return materialised_backward(dquery_BQHK, dkey_BKHK, dvalue_BKHK, dbias_HR, dy_BQHK, delta,
                                 statistics_BHQ2, in);
  const Tensor dy = has_aligned_rows(dy_BQHK) ? dy_BQHK : dy_BQHK.clone();
  const KeptBits bits = draw_kept_bits(in);
  if (dkey_BKHK.defined() || dvalue_BKHK.defined())
    fused_backward_keys(dkey_BKHK, dvalue_BKHK, dy, delta, statistics_BHQ2, in, bits.kept);
  if (dquery_BQHK.defined() || dbias_HR.defined())
    fused_backward_queries(dquery_BQHK, dbias_HR, dy, delta, statistics_BHQ2, in, bits.kept);
}

void lse(const Tensor& lse_BHQ, const Tensor& statistics_BHQ2) {
  launch(lse_of_rows, blocks_for(lse_BHQ.numel(), kThreads), kThreads, 0, lse_BHQ.data<float>(),
         statistics_BHQ2.data<float>(), lse_BHQ.numel());
}

}  // namespace

inline namespace STMOE_GPU_BUILD {

AttentionSizes attention_sizes(const AttentionInputs& in) {
  return {in.query_BQHK.dim(0), in.query_BQHK.dim(1), in.key_BKHK.dim(1), in.query_BQHK.dim(2),
          in.query_BQHK.dim(3)};
}

AttentionMask attention_mask(const AttentionInputs& in) {
  AttentionMask mask;
  if (in.options.query_segments_BQ.defined()) {
    mask.query_segments = in.options.query_segments_BQ.data<int32_t>();
    mask.key_segments = in.options.key_segments_BK.data<int32_t>();
  }
  if (in.bias_HR.defined()) {
    mask.bias = in.bias_HR.data<float>();
    mask.num_relative = in.bias_HR.dim(1);
  }
  mask.first_relative = in.first_relative;
  mask.query_offset = in.options.query_offset;
  mask.is_causal = in.options.is_causal;
  return mask;
}

KeptBits draw_kept_bits(const AttentionInputs& in) {
  const Dropout& dropout = in.options.dropout;
  const AttentionSizes n = attention_sizes(in);
  KeptBits bits;
  if (dropout.rate == 0) return bits;
  const bool is_shared = in.options.is_dropout_shared;
  const int64_t rows_of_head = is_shared ? 1 : n.queries, rows = n.batch * n.heads * rows_of_head;
  const int64_t words_per_row = (n.keys + 31) / 32;
  bits.words = Tensor::empty({rows * words_per_row}, DType::i32, in.query_BQHK.device());
  auto* words = reinterpret_cast<uint32_t*>(bits.words.data<int32_t>());
  const auto first = static_cast<uint64_t>(dropout.first_row * n.heads * rows_of_head * n.keys);
  launch(keep_bits, blocks_for(bits.words.numel(), kThreads), kThreads, 0, words,
         bits.words.numel(), words_per_row, n.keys, first, dropout.key,
         static_cast<uint32_t>(std::ceil(dropout.rate * 0x1p24)));
  bits.kept = {words, words_per_row, is_shared, static_cast<float>(1 / (1 - dropout.rate))};
  return bits;
}

Tensor attention_delta(const Tensor& dy_BQHK, const Tensor& y_BQHK, const Tensor& dlse_BHQ) {
  const AttentionSizes n{y_BQHK.dim(0), y_BQHK.dim(1), 0, y_BQHK.dim(2), y_BQHK.dim(3)};
  const Tensor delta = Tensor::empty({n.batch, n.heads, n.queries}, DType::f32, y_BQHK.device());
  const auto run = [&](auto tag) {
    using T = decltype(tag);
    const auto is_aligned = [](int64_t elements) { return elements % Pack<T>::kSize == 0; };
    const bool is_vector = is_aligned(n.width) && is_aligned(dy_BQHK.stride(0)) &&
                           is_aligned(dy_BQHK.stride(1)) && is_aligned(dy_BQHK.stride(2)) &&
                           reinterpret_cast<uintptr_t>(dy_BQHK.raw()) % 16 == 0;
    launch(row_dots<T>, blocks_for(delta.numel(), kThreads / 8), kThreads, 0, delta.data<float>(),
           dy_BQHK.data<T>(), y_BQHK.data<T>(),
           dlse_BHQ.defined() ? dlse_BHQ.data<float>() : nullptr, n, dy_BQHK.stride(0),
           dy_BQHK.stride(1), dy_BQHK.stride(2), is_vector);
  };
  if (y_BQHK.dtype() == DType::bf16)
    run(bf16{});
  else
    run(float{});
  return delta;
}

bool is_fused_offered(const AttentionInputs& in) {
  const AttentionSizes n = attention_sizes(in);
  return in.query_BQHK.dtype() == DType::bf16 && (n.width == 64 || n.width == 128) &&
         n.queries <= kMostFusedRows && n.keys <= kMostFusedRows &&
         has_aligned_rows(in.query_BQHK) && has_aligned_rows(in.key_BKHK) &&
         has_aligned_rows(in.value_BKHK);
}

void sum_diagonals(const Tensor& dbias_HR, int64_t first_head, int64_t heads,
                   const DiagonalSums& sums, const AttentionInputs& in) {
  const AttentionSizes n = attention_sizes(in);
  const int64_t num_relative = dbias_HR.dim(1);
  const SumShape shape{heads,
                       sums.length,
                       static_cast<int>(sums.chunks * sums.tiles),
                       static_cast<int>(sums.tiles),
                       static_cast<int>(sums.tile_rows),
                       static_cast<int>(n.keys + sums.tile_rows - 1)};
  const Grid grid{(num_relative + kWarp - 1) / kWarp, heads};
  launch(add_diagonals, grid, kSumThreads, 0, dbias_HR.data<float>() + first_head * num_relative,
         sums.partial.data<float>(), shape, num_relative, in.first_relative,
         in.options.query_offset);
}

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AttentionKernels, STMOE_GPU, {gpu::forward, gpu::backward, gpu::lse})

}  // namespace stmoe
