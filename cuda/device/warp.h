// SPDX-License-Identifier: Apache-2.0
// What the threads of a warp, and the warps of a block, tell each other. All 32 lanes must come;
// for block sums, all threads of the block.
#pragma once

#include "cuda/device/device.h"

namespace stmoe::gpu {

#if defined(__CUDACC__)
inline constexpr unsigned kAllLanes = 0xffffffffu;
template <class T>
STMOE_DEVICE T shuffle(T value, int from_lane) {
  return __shfl_sync(kAllLanes, value, from_lane);
}
template <class T>
STMOE_DEVICE T shuffle_xor(T value, int lane_mask) {
  return __shfl_xor_sync(kAllLanes, value, lane_mask);
}
STMOE_DEVICE uint32_t ballot(bool vote) { return __ballot_sync(kAllLanes, vote); }
// The lanes whose value is the caller's.
STMOE_DEVICE uint32_t match_any(int value) { return __match_any_sync(kAllLanes, value); }
STMOE_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }
// What lanes of the warp wrote to shared memory before is there for all of them after.
STMOE_DEVICE void sync_warp() { __syncwarp(); }
#else
// The kernel's line travels along, so that lanes that are elsewhere are told apart.
using Where = const std::source_location;
template <class T>
STMOE_DEVICE uint64_t word_of(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t word = 0;
  __builtin_memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
STMOE_DEVICE T value_of(uint64_t word) {
  T value;
  __builtin_memcpy(&value, &word, sizeof(T));
  return value;
}
template <class T>
STMOE_DEVICE T shuffle(T value, int from_lane, Where& where = Where::current()) {
  return value_of<T>(
      emu::gather_warp(word_of(value), where)[static_cast<size_t>(from_lane & (kWarp - 1))]);
}
template <class T>
STMOE_DEVICE T shuffle_xor(T value, int lane_mask, Where& where = Where::current()) {
  // By its full name: std::shuffle, found through `where`, takes three arguments too.
  return gpu::shuffle(value, lane_index() ^ lane_mask, where);
}
STMOE_DEVICE uint32_t ballot(bool vote, Where& where = Where::current()) {
  uint32_t bits = 0;
  const auto votes = emu::gather_warp(vote ? 1 : 0, where);
  for (int lane = 0; lane < kWarp; ++lane)
    bits |= static_cast<uint32_t>(votes[static_cast<size_t>(lane)]) << lane;
  return bits;
}
STMOE_DEVICE uint32_t match_any(int value, Where& where = Where::current()) {
  uint32_t bits = 0;
  const auto values = emu::gather_warp(word_of(value), where);
  for (int lane = 0; lane < kWarp; ++lane)
    if (values[static_cast<size_t>(lane)] == word_of(value)) bits |= uint32_t{1} << lane;
  return bits;
}
STMOE_DEVICE int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
STMOE_DEVICE void sync_warp(Where& where = Where::current()) { emu::gather_warp(0, where); }
#endif

// The same sum in every lane: pairs of lanes at distance 16, 8, 4, 2, 1, so that all lanes add in
// an order that gives the same bits.
template <class T>
STMOE_DEVICE T warp_sum(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
template <class T>
STMOE_DEVICE T warp_max(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const T other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// The sum of the values of this lane and of those before it.
template <class T>
STMOE_DEVICE T warp_prefix_sum(T value) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T before = shuffle(value, lane_index() - distance);
    if (lane_index() >= distance) value += before;
  }
  return value;
}

// The same sum in every thread of the block; `partial` is shared memory of 32 values, free to be
// used again after the next barrier. In a loop, two such memories in turn need no other barrier.
template <class T>
STMOE_DEVICE T block_sum(T value, T* partial) {
  value = warp_sum(value);
  if (lane_index() == 0) partial[warp_index()] = value;
  STMOE_SYNC_THREADS();
  return warp_sum(lane_index() < block_warps() ? partial[lane_index()] : T{});
}

template <class T>
STMOE_DEVICE T block_max(T value, T* partial) {
  value = warp_max(value);
  if (lane_index() == 0) partial[warp_index()] = value;
  STMOE_SYNC_THREADS();
  return warp_max(partial[lane_index() < block_warps() ? lane_index() : 0]);
}

// The sum of the values of the threads before this one; *total that of all. `partial` as above.
template <class T>
STMOE_DEVICE T block_exclusive_sum(T value, T* total, T* partial) {
  const T inclusive = warp_prefix_sum(value);
  if (lane_index() == kWarp - 1) partial[warp_index()] = inclusive;
  STMOE_SYNC_THREADS();
  const T warps = warp_prefix_sum(lane_index() < block_warps() ? partial[lane_index()] : T{});
  const T before = shuffle(warps, warp_index() > 0 ? warp_index() - 1 : 0);
  *total = shuffle(warps, kWarp - 1);
  return (warp_index() > 0 ? before : T{}) + inclusive - value;
}

}  // namespace stmoe::gpu
