// SPDX-License-Identifier: Apache-2.0
// The order of keys: a stable radix sort of their positions, eight bits a pass. Each pass counts
// the digits of each tile of positions, adds up where each tile's keys of a digit go, and moves the
// positions there. Nothing is added to memory by several threads at once, and the result has one
// right value, so it does not depend on how blocks run.
#pragma once

#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/tensor.h"

namespace stmoe::gpu {

inline constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
// A thread is one of the 256 digits where digits are counted; a warp has 256 neighbouring keys of
// the tile, 32 at a time.
inline constexpr int kOrderThreads = 256, kOrderWarps = kOrderThreads / kWarp;
inline constexpr int kKeysOfWarp = 256, kTileKeys = kKeysOfWarp * kOrderWarps;

// Position of key i in the order so far; null: the first pass.
STMOE_DEVICE int32_t position_at(const int32_t* order, int64_t i) {
  return order ? order[i] : static_cast<int32_t>(i);
}

// f(i, digit, rank) for every key i of the tile, rank = how many keys of the same warp and digit
// come before it; afterwards counts [warps, digits] has how many each warp had.
template <class F>
STMOE_DEVICE void rank_digits(uint32_t* counts, const uint32_t* keys, const int32_t* order,
                              int64_t count, int shift, F&& f) {
  for (int i = thread_index(); i < kOrderWarps * kDigits; i += kOrderThreads) counts[i] = 0;
  STMOE_SYNC_THREADS();
  uint32_t* mine = counts + warp_index() * kDigits;
  const int64_t first = block_index() * kTileKeys + warp_index() * kKeysOfWarp;
  for (int round = 0; round < kKeysOfWarp; round += kWarp) {
    const int64_t i = first + round + lane_index();
    // Lanes beyond the end are their own peers, and count nothing.
    const int digit =
        i < count ? static_cast<int>((keys[position_at(order, i)] >> shift) % kDigits) : -1;
    const uint32_t peers = match_any(digit);
    const int rank = count_bits(peers & ((uint32_t{1} << lane_index()) - 1));
    if (digit >= 0) f(i, digit, mine[digit] + static_cast<uint32_t>(rank));
    sync_warp();
    if (digit >= 0 && rank == 0) mine[digit] += static_cast<uint32_t>(count_bits(peers));
    sync_warp();
  }
  STMOE_SYNC_THREADS();
}

// One tile a block: tile_counts [digits, tiles].
STMOE_KERNEL count_digits(uint32_t* tile_counts, const uint32_t* keys, const int32_t* order,
                          int64_t count, int shift) {
  STMOE_SHARED(uint32_t, counts, kOrderWarps * kDigits);
  rank_digits(counts, keys, order, count, shift, [](int64_t, int, uint32_t) {});
  uint32_t total = 0;
  for (int warp = 0; warp < kOrderWarps; ++warp) total += counts[warp * kDigits + thread_index()];
  tile_counts[thread_index() * num_blocks() + block_index()] = total;
}

// One block: each value becomes the sum of those before it.
STMOE_KERNEL exclusive_sums(uint32_t* values, int64_t count) {
  STMOE_SHARED(uint32_t, partial, 2 * kWarp);
  uint32_t before = 0;
  int turn = 0;
  for (int64_t first = 0; first < count; first += block_threads(), turn ^= 1) {
    const int64_t i = first + thread_index();
    uint32_t total = 0;
    const uint32_t sum =
        block_exclusive_sum(i < count ? values[i] : 0u, &total, partial + turn * kWarp);
    if (i < count) values[i] = before + sum;
    before += total;
  }
}

// One tile a block, with the sums that count_digits and exclusive_sums made.
STMOE_KERNEL move_positions(int32_t* to, const uint32_t* tile_starts, const uint32_t* keys,
                            const int32_t* order, int64_t count, int shift) {
  STMOE_SHARED(uint32_t, counts, kOrderWarps * kDigits);
  STMOE_SHARED(uint32_t, starts, kOrderWarps * kDigits);
  rank_digits(counts, keys, order, count, shift, [](int64_t, int, uint32_t) {});
  uint32_t start = tile_starts[thread_index() * num_blocks() + block_index()];
  for (int warp = 0; warp < kOrderWarps; ++warp) {
    starts[warp * kDigits + thread_index()] = start;
    start += counts[warp * kDigits + thread_index()];
  }
  STMOE_SYNC_THREADS();
  rank_digits(counts, keys, order, count, shift, [&](int64_t i, int digit, uint32_t rank) {
    to[starts[warp_index() * kDigits + digit] + rank] = position_at(order, i);
  });
}

// Host: positions 0, 1, ... of `keys` (on the device) in the order of their keys, of equal keys in
// their own order: i32 [count]. Keys are below 2^bits.
inline Tensor radix_order(const uint32_t* keys, int64_t count, int bits, Device device) {
  STMOE_CHECK(count < int64_t{1} << 31, "radix_order: {} keys", count);
  Tensor order = Tensor::empty({count}, DType::i32, device);
  Tensor previous = bits > kDigitBits ? Tensor::empty({count}, DType::i32, device) : Tensor();
  const int64_t tiles = blocks_for(count, kTileKeys).x;
  const Tensor sums = Tensor::empty({kDigits * tiles}, DType::i32, device);
  auto* tile_counts = reinterpret_cast<uint32_t*>(sums.data<int32_t>());
  const int32_t* from = nullptr;
  for (int shift = 0; shift == 0 || shift < bits; shift += kDigitBits) {
    launch(count_digits, {tiles}, kOrderThreads, 0, tile_counts, keys, from, count, shift);
    if (tiles > 0) launch(exclusive_sums, {}, 1024, 0, tile_counts, kDigits * tiles);
    launch(move_positions, {tiles}, kOrderThreads, 0, order.data<int32_t>(), tile_counts, keys,
           from, count, shift);
    if (shift + kDigitBits < bits) std::swap(order, previous);
    from = previous.defined() ? previous.data<int32_t>() : nullptr;
  }
  return order;
}

}  // namespace stmoe::gpu
