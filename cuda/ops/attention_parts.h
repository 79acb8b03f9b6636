// SPDX-License-Identifier: Apache-2.0
// What the ways to compute attention on a GPU share (internal to cuda/ops/attention*.cu): sizes and
// masks as kernels take them, and the small kernels that go before and after.
#pragma once

#include "cuda/device/device.h"
#include "lib/ops/attention.h"

// The same functions exist for the GPU and for the emulation, and both may be in one program.
#if defined(__CUDACC__)
#define STMOE_GPU_BUILD on_cuda
#else
#define STMOE_GPU_BUILD on_emu
#endif

namespace stmoe::gpu {
inline namespace STMOE_GPU_BUILD {

struct AttentionSizes {
  int64_t batch = 0, queries = 0, keys = 0, heads = 0, width = 0;
};
AttentionSizes attention_sizes(const AttentionInputs& in);

// Which pairs see each other, and their bias. Null where there is none.
struct AttentionMask {
  const int32_t* query_segments = nullptr;  // [batch, queries]
  const int32_t* key_segments = nullptr;    // [batch, keys]
  const float* bias = nullptr;              // [heads, num_relative]
  int64_t first_relative = 0, num_relative = 0, query_offset = 0;
  bool is_causal = false;
};
AttentionMask attention_mask(const AttentionInputs& in);

// Which weights dropout keeps, a bit for each key, lowest first: a row of words for each head of
// each sequence when its queries share it, else for each query. Null: all, with scale 1.
struct KeptWeights {
  const uint32_t* words = nullptr;
  int64_t words_per_row = 0;
  bool is_shared = true;
  float scale = 1;  // 1 / (1 - rate)
};
// The memory and how to read it.
struct KeptBits {
  Tensor words;
  KeptWeights kept;
};
// Drawn once for all kernels of a pass: B * H * (1 or Q) * K / 8 bytes.
KeptBits draw_kept_bits(const AttentionInputs& in);

// delta[b, h, q] = dy . y - dlse; f32.
Tensor attention_delta(const Tensor& dy_BQHK, const Tensor& y_BQHK, const Tensor& dlse_BHQ);

// Partial sums of the bias gradient: [chunks, heads, tiles, length] f32. Element i of tile t is of
// relative position i - (t * tile_rows + tile_rows - 1 + query_offset), i < keys + tile_rows - 1.
struct DiagonalSums {
  Tensor partial;
  int64_t chunks = 0, tiles = 0, tile_rows = 1, length = 0;
};
// Heads [first_head, first_head + heads) of dbias_HR: the sums over chunks and tiles, in a fixed
// order.
void sum_diagonals(const Tensor& dbias_HR, int64_t first_head, int64_t heads,
                   const DiagonalSums& sums, const AttentionInputs& in);

void materialised_forward(const Tensor& y_BQHK, const Tensor& statistics_BHQ2,
                          const AttentionInputs& in);
void materialised_backward(const Tensor& dquery_BQHK, const Tensor& dkey_BKHK,
                           const Tensor& dvalue_BKHK, const Tensor& dbias_HR, const Tensor& dy_BQHK,
                           const Tensor& delta_BHQ, const Tensor& statistics_BHQ2,
                           const AttentionInputs& in);

inline constexpr int kMostFusedRows = 8192;
// bf16, d_kv 64 or 128, up to kMostFusedRows queries and keys, rows of heads at multiples of 16
// bytes.
bool is_fused_offered(const AttentionInputs& in);
void fused_forward(const Tensor& y_BQHK, const Tensor& statistics_BHQ2, const AttentionInputs& in);
// The gradients of queries and bias, and those of keys and values; what is undefined is not wanted.
void fused_backward_queries(const Tensor& dquery_BQHK, const Tensor& dbias_HR,
                            const Tensor& dy_BQHK, const Tensor& delta_BHQ,
                            const Tensor& statistics_BHQ2, const AttentionInputs& in,
                            const KeptWeights& kept);
void fused_backward_keys(const Tensor& dkey_BKHK, const Tensor& dvalue_BKHK, const Tensor& dy_BQHK,
                         const Tensor& delta_BHQ, const Tensor& statistics_BHQ2,
                         const AttentionInputs& in, const KeptWeights& kept);

}  // namespace STMOE_GPU_BUILD
}  // namespace stmoe::gpu
