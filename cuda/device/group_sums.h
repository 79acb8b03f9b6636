// SPDX-License-Identifier: Apache-2.0
// Sums over the tokens of each group: of every expert's probabilities, and of the choices that name
// it. Blocks add up chunks of tokens that do not cross groups; whoever reads them adds a group's
// chunks in order, in f64. The same bits whatever the order of blocks.
#pragma once

#include <algorithm>

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/tensor.h"

namespace stmoe::gpu {

inline constexpr int kGroupThreads = 256;

struct GroupSizes {
  int64_t groups, tokens;  // tokens of one group
  int64_t chunks, chunk_tokens;
  int experts;
};

// About 2^14 probabilities a chunk.
inline GroupSizes group_sizes(int64_t groups, int64_t tokens, int64_t experts) {
  const int64_t chunk_tokens = std::max<int64_t>(32, (1 << 14) / experts);
  return {groups, tokens, (tokens + chunk_tokens - 1) / chunk_tokens, chunk_tokens,
          static_cast<int>(experts)};
}

// Pointers may be null: nothing of that kind is summed, or every choice has a place, or every token
// counts.
template <class T>
struct GroupTerms {
  const T* p_NE;
  const int32_t *expert_NK, *slot_NK, *mask_N;
  int64_t k;
};

// A choice without a place counts as one of expert 0 (ShareOptions::slot_NK).
template <class T>
STMOE_DEVICE int counted_expert(const GroupTerms<T>& in, int64_t i) {
  const int expert = in.expert_NK[i];
  return expert >= 0 && in.slot_NK && in.slot_NK[i] < 0 ? 0 : expert;
}

// partial [groups * chunks, 2, experts]: the chunk's probabilities and its choices. Threads are
// dealt out expert after expert and then token after token, so that a warp reads neighbours however
// few experts there are: thread t has expert t % experts (with more than 256 of them t, t + 256,
// ...). Its tokens' sums meet in shared memory and are added in order. Reads 4 bytes a probability;
// a token's choices are read once for each expert, from the caches.
template <class T>
STMOE_KERNEL sum_chunk(T* partial, GroupTerms<T> in, GroupSizes sizes) {
  STMOE_SHARED(T, mass_of, kGroupThreads);
  STMOE_SHARED(int, count_of, kGroupThreads);
  const int64_t group = block_index() / sizes.chunks;
  const int64_t offset = block_index() % sizes.chunks * sizes.chunk_tokens;
  const int64_t begin = group * sizes.tokens + offset;
  const int64_t end =
      group * sizes.tokens +
      (offset + sizes.chunk_tokens < sizes.tokens ? offset + sizes.chunk_tokens : sizes.tokens);
  const int width = sizes.experts < kGroupThreads ? sizes.experts : kGroupThreads;
  const int slices = kGroupThreads / width, slice = thread_index() / width;
  for (int first = 0; first < sizes.experts; first += width) {
    const int e = first + thread_index() % width;
    T mass = 0;
    int count = 0;
    if (slice < slices && e < sizes.experts)
      for (int64_t n = begin + slice; n < end; n += slices) {
        if (in.mask_N && in.mask_N[n] == 0) continue;
        if (in.p_NE) mass += in.p_NE[n * sizes.experts + e];
        if (in.expert_NK)
          for (int64_t i = n * in.k; i < (n + 1) * in.k; ++i) count += counted_expert(in, i) == e;
      }
    mass_of[thread_index()] = mass;
    count_of[thread_index()] = count;
    STMOE_SYNC_THREADS();
    if (slice == 0 && e < sizes.experts) {
      for (int s = 1; s < slices; ++s) {
        mass += mass_of[s * width + thread_index()];
        count += count_of[s * width + thread_index()];
      }
      partial[2 * block_index() * sizes.experts + e] = mass;
      partial[(2 * block_index() + 1) * sizes.experts + e] = static_cast<T>(count);
    }
    STMOE_SYNC_THREADS();
  }
}

// The group's sum of one of the two for an expert: which = 0 probabilities, 1 choices.
template <class T>
STMOE_DEVICE double group_sum(const T* partial, const GroupSizes& sizes, int64_t group, int which,
                              int expert) {
  double total = 0;
  for (int64_t chunk = group * sizes.chunks; chunk < (group + 1) * sizes.chunks; ++chunk)
    total += static_cast<double>(partial[(2 * chunk + which) * sizes.experts + expert]);
  return total;
}

template <class T>
Tensor sum_groups(const GroupTerms<T>& terms, const GroupSizes& sizes, Device device) {
  const Tensor partial =
      Tensor::empty({sizes.groups * sizes.chunks, 2, sizes.experts}, kDTypeOf<T>, device);
  launch(sum_chunk<T>, {sizes.groups * sizes.chunks}, kGroupThreads, 0, partial.data<T>(), terms,
         sizes);
  return partial;
}

// dp[n,e] = factor * share[group of n, e], 0 where the mask is 0: the gradient of a sum over a
// group's tokens. A thread for each element: writes 4 bytes, shares come from the caches. The
// factor is *scale (null: 1) times `factor`.
template <class T>
STMOE_KERNEL spread_group(T* dp_NE, const T* share_GE, const T* scale, T factor,
                          const int32_t* mask_N, int64_t count, int64_t tokens, int64_t experts) {
  const int64_t i = block_index() * kGroupThreads + thread_index();
  if (i < count) {
    const int64_t n = quotient(i, experts), e = i - n * experts;
    const bool is_counted = !mask_N || mask_N[n] != 0;
    const T share = share_GE[quotient(n, tokens) * experts + e];
    dp_NE[i] = is_counted ? (scale ? *scale * factor : factor) * share : T(0);
  }
}

template <class T>
void spread_groups(const Tensor& dp_NE, const Tensor& share_GE, const T* scale, T factor,
                   const Tensor& mask_N) {
  launch(spread_group<T>, blocks_for(dp_NE.numel(), kGroupThreads), kGroupThreads, 0,
         dp_NE.data<T>(), share_GE.data<T>(), scale, factor,
         mask_N.defined() ? mask_N.data<int32_t>() : nullptr, dp_NE.numel(),
         dp_NE.dim(0) / share_GE.dim(0), dp_NE.dim(1));
}

}  // namespace stmoe::gpu
