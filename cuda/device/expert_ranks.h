// SPDX-License-Identifier: Apache-2.0
// The place of every entry among those of the same expert, in a given order and within its group:
// how slots, compact rows and a radix sort's places are found, without atomics. Three launches:
// each block counts its 256 entries by expert; a scan over a group's blocks makes their counts the
// places where they begin; each block counts again and gives the places. Integers only: the result
// does not hang on the order of threads or blocks.
//
// `Entries` is a struct of pointers and sizes with
//   int expert_at(const Entries&, int64_t group, int64_t i)      of the i-th entry, -1: none
//   void place_at(const Entries&, int64_t group, int64_t i, int expert, int64_t place)
// place counts from 0 for each group and expert; for an entry without expert both are -1.
#pragma once

#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/tensor.h"

namespace stmoe::gpu {

inline constexpr int kRankThreads = 256, kRankWarps = kRankThreads / kWarp;
// Experts that a block counts at a time: 16 KB of shared memory.
inline constexpr int kRankExperts = 2048;

// Counts by warp and expert in shared memory, of experts [first, first + count): the entries of a
// warp that name one expert find each other by match_any, the lowest lane writes their number.
STMOE_DEVICE void count_warps(uint8_t* count_WE, int expert, uint32_t peers, int first, int count) {
  for (int i = thread_index(); i < kRankWarps * count; i += kRankThreads) count_WE[i] = 0;
  STMOE_SYNC_THREADS();
  const uint32_t lower = peers & ((uint32_t{1} << lane_index()) - 1);
  if (expert >= first && expert < first + count && lower == 0)
    count_WE[warp_index() * count + expert - first] = static_cast<uint8_t>(count_bits(peers));
  STMOE_SYNC_THREADS();
}

// An entry a thread, `chunks` blocks of 256 a group. Writes 4 bytes a block and expert.
template <class Entries>
STMOE_KERNEL count_chunk(int32_t* count_CE, Entries entries, int64_t size, int64_t chunks,
                         int experts) {
  uint8_t* count_WE = dynamic_smem<uint8_t>();
  const int64_t group = block_index() / chunks;
  const int64_t i = block_index() % chunks * kRankThreads + thread_index();
  const int expert = i < size ? expert_at(entries, group, i) : -1;
  const uint32_t peers = match_any(expert);
  for (int first = 0; first < experts; first += kRankExperts) {
    const int count = experts - first < kRankExperts ? experts - first : kRankExperts;
    count_warps(count_WE, expert, peers, first, count);
    for (int e = thread_index(); e < count; e += kRankThreads) {
      int total = 0;
      for (int w = 0; w < kRankWarps; ++w) total += count_WE[w * count + e];
      count_CE[block_index() * experts + first + e] = total;
    }
    STMOE_SYNC_THREADS();
  }
}

// A warp for each group and expert: the counts of the group's chunks become where they begin, from
// total_GE on if that goes on from an earlier round, which then is where the next would begin.
STMOE_KERNEL scan_chunks(int32_t* count_CE, int32_t* total_GE, bool goes_on, int64_t groups,
                         int64_t chunks, int experts) {
  const int64_t pair = block_index() * block_warps() + warp_index();
  if (pair < groups * experts) {
    const int64_t group = pair / experts, expert = pair % experts;
    int total = goes_on ? total_GE[pair] : 0;
    for (int64_t first = 0; first < chunks; first += kWarp) {
      const int64_t chunk = first + lane_index();
      int32_t* count = count_CE + (group * chunks + chunk) * experts + expert;
      const int own = chunk < chunks ? *count : 0;
      const int sum = warp_prefix_sum(own);
      if (chunk < chunks) *count = total + sum - own;
      total += shuffle(sum, kWarp - 1);
    }
    if (total_GE && lane_index() == 0) total_GE[pair] = total;
  }
}

// A warp for each group: where the places of every expert begin when they lie one after another,
// and behind them their number.
STMOE_KERNEL scan_experts(int32_t* first_GE1, const int32_t* total_GE, int64_t groups,
                          int experts) {
  const int64_t group = block_index() * block_warps() + warp_index();
  if (group < groups) {
    int32_t* first = first_GE1 + group * (experts + 1);
    int total = 0;
    for (int begin = 0; begin < experts; begin += kWarp) {
      const int e = begin + lane_index();
      const int own = e < experts ? total_GE[group * experts + e] : 0;
      const int sum = warp_prefix_sum(own);
      if (e < experts) first[e] = total + sum - own;
      total += shuffle(sum, kWarp - 1);
    }
    if (lane_index() == 0) first[experts] = total;
  }
}

// As count_chunk; the place of an entry is where its block begins for its expert, plus those of
// lower warps, plus those of lower lanes.
template <class Entries>
STMOE_KERNEL place_chunk(Entries entries, const int32_t* count_CE, int64_t size, int64_t chunks,
                         int experts) {
  uint8_t* count_WE = dynamic_smem<uint8_t>();
  const int64_t group = block_index() / chunks;
  const int64_t i = block_index() % chunks * kRankThreads + thread_index();
  const int expert = i < size ? expert_at(entries, group, i) : -1;
  const uint32_t peers = match_any(expert);
  int64_t place = -1;
  for (int first = 0; first < experts; first += kRankExperts) {
    const int count = experts - first < kRankExperts ? experts - first : kRankExperts;
    count_warps(count_WE, expert, peers, first, count);
    if (expert >= first && expert < first + count) {
      place = count_CE[block_index() * experts + expert] +
              count_bits(peers & ((uint32_t{1} << lane_index()) - 1));
      for (int w = 0; w < warp_index(); ++w) place += count_WE[w * count + expert - first];
    }
    STMOE_SYNC_THREADS();
  }
  if (i < size) place_at(entries, group, i, place < 0 ? -1 : expert, place);
}

struct RankOptions {
  Tensor total_GE;       // i32, or undefined: entries of each group and expert
  bool goes_on = false;  // places begin at total_GE, which is advanced
  Tensor first_GE1;      // i32, or undefined: scan_experts of the totals, filled before places are
};

inline size_t rank_shared_bytes(int64_t experts) {
  return static_cast<size_t>(experts < kRankExperts ? experts : kRankExperts) * kRankWarps;
}

// `size` entries a group.
template <class Entries>
void rank_entries(const Entries& entries, int64_t groups, int64_t size, int64_t experts,
                  Device device, const RankOptions& options = {}) {
  const int64_t chunks = (size + kRankThreads - 1) / kRankThreads;
  const Tensor count_CE = Tensor::empty({groups * chunks, experts}, DType::i32, device);
  int32_t* count = count_CE.data<int32_t>();
  const size_t shared = rank_shared_bytes(experts);
  launch(count_chunk<Entries>, {groups * chunks}, kRankThreads, shared, count, entries, size,
         chunks, experts);
  launch(scan_chunks, blocks_for(groups * experts, kRankWarps), kRankThreads, 0, count,
         options.total_GE.defined() ? options.total_GE.data<int32_t>() : nullptr, options.goes_on,
         groups, chunks, experts);
  if (options.first_GE1.defined())
    launch(scan_experts, blocks_for(groups, 1), kWarp, 0, options.first_GE1.data<int32_t>(),
           options.total_GE.data<int32_t>(), groups, experts);
  launch(place_chunk<Entries>, {groups * chunks}, kRankThreads, shared, entries, count, size,
         chunks, experts);
}

// How many entries name each expert: i32 [groups, experts]. Needs no place_at.
template <class Entries>
Tensor count_experts(const Entries& entries, int64_t groups, int64_t size, int64_t experts,
                     Device device) {
  const int64_t chunks = (size + kRankThreads - 1) / kRankThreads;
  const Tensor count_CE = Tensor::empty({groups * chunks, experts}, DType::i32, device);
  const Tensor total_GE = Tensor::empty({groups, experts}, DType::i32, device);
  launch(count_chunk<Entries>, {groups * chunks}, kRankThreads, rank_shared_bytes(experts),
         count_CE.data<int32_t>(), entries, size, chunks, experts);
  launch(scan_chunks, blocks_for(groups * experts, kRankWarps), kRankThreads, 0,
         count_CE.data<int32_t>(), total_GE.data<int32_t>(), false, groups, chunks, experts);
  return total_GE;
}

}  // namespace stmoe::gpu
