// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward pass of a head share (internal): packing rows of queries, keys
// and values for tile_product, which keys a tile of queries can see, and the bias and segments of a
// head padded to whole panels.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>

#include "lib/base/random_words.h"
#include "lib/ops/cpu/attention_head.h"
#include "lib/ops/cpu/tile_kernel.h"
#include "lib/ops/scratch.h"

namespace stmoe::inline STMOE_CPU_LEVEL {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <class Packed>
int64_t packed_count(int64_t count) {
  return (count + kPackedDepth<Packed> - 1) / kPackedDepth<Packed>;
}

// Rows as the left operand of a product over their width: [rows, packed width].
template <class Packed, class T>
void pack_rows(Packed* out, HeadRows<const T> in, int64_t first, int64_t rows, int64_t width) {
  const int64_t packed = packed_count<Packed>(width);
  for (int64_t r = 0; r < rows; ++r, out += packed) {
    const T* row = in[first + r];
    if constexpr (std::is_same_v<Packed, Bf16Pair>) {
      out[packed - 1] = {};
      std::memcpy(out, row, static_cast<size_t>(width) * sizeof(T));
    } else {
      for (int64_t i = 0; i < width; ++i) out[i] = static_cast<Packed>(row[i]);
    }
  }
}

// The packed element at `at` of a row.
template <class Packed, class T>
Packed packed_element(const T* row, int64_t at, int64_t width) {
  if constexpr (std::is_same_v<Packed, Bf16Pair>) {
    const uint32_t high = 2 * at + 1 < width ? row[2 * at + 1].bits : 0;
    return {row[2 * at].bits | high << 16};
  } else {
    return static_cast<Packed>(row[at]);
  }
}

// Rows as the transposed right operand of a product over their width: panels of kPanel rows, each
// [packed width, kPanel]. Rows beyond the last, and rows not kept (kept[r] == 0), are zero.
template <class Packed, class T>
void pack_transposed(Packed* out, HeadRows<const T> in, int64_t first, int64_t rows, int64_t width,
                     const uint8_t* kept) {
  using Word = TileSum<Packed>;
  constexpr int64_t kWidth = kPanel<Packed>, kSquare = kLanes<Word>;
  const int64_t packed = packed_count<Packed>(width);
  // Squares of whole packed elements as they lie in memory are transposed in registers.
  constexpr bool kIsInPlace = sizeof(Packed) == kPackedDepth<Packed> * sizeof(T);
  const int64_t squares = kIsInPlace ? width / kPackedDepth<Packed> / kSquare * kSquare : 0;
  const auto is_kept = [&](int64_t r) { return r < rows && (!kept || kept[first + r]); };
  for (int64_t r = 0; r < round_up(rows, kWidth); r += kSquare) {
    Packed* column = out + r / kWidth * packed * kWidth + r % kWidth;
    for (int64_t i = 0; i < squares; i += kSquare) {
      Vector<Word> words[kSquare];
      for (int64_t j = 0; j < kSquare; ++j)
        words[j] = is_kept(r + j) ? load(reinterpret_cast<const Word*>(in[first + r + j]) + i)
                                  : Vector<Word>{};
      transpose<Word>(words);
      for (int64_t j = 0; j < kSquare; ++j)
        store(reinterpret_cast<Word*>(column + (i + j) * kWidth), words[j]);
    }
    for (int64_t i = squares; i < packed; ++i)
      for (int64_t j = 0; j < kSquare; ++j)
        column[i * kWidth + j] =
            is_kept(r + j) ? packed_element<Packed>(in[first + r + j], i, width) : Packed{};
  }
}

// How the width d_kv is cut into panels when it is the width of a result.
struct WidthPanels {
  int vectors;     // of one panel
  int64_t width;   // elements of one panel
  int64_t count;   // panels
  int64_t padded;  // count * width
};
template <class Sum>
WidthPanels width_panels(int64_t width) {
  int vectors = 1;
  while (vectors < kTileVectors && vectors * kLanes<Sum> < width) vectors *= 2;
  const int64_t panel = vectors * kLanes<Sum>, count = (width + panel - 1) / panel;
  return {vectors, panel, count, count * panel};
}

// Rows as the right operand of a product along the rows: panels of the width, each [packed rows,
// panel].
template <class Packed, class T>
void pack_along_rows(Packed* out, HeadRows<const T> in, int64_t first, int64_t rows, int64_t width,
                     const WidthPanels& panels, const uint8_t* kept) {
  constexpr int64_t kStep = kPackedDepth<Packed>;
  for (int64_t p = 0; p < panels.count; ++p) {
    const int64_t begin = p * panels.width, count = std::min(panels.width, width - begin);
    for (int64_t r = 0; r < rows; r += kStep, out += panels.width) {
      const auto is_kept = [&](int64_t row) { return row < rows && (!kept || kept[first + row]); };
      const T* row = in[first + r] + begin;
      if constexpr (std::is_same_v<Packed, Bf16Pair>) {
        const uint32_t low_mask = is_kept(r) ? 0xFFFFu : 0,
                       high_mask = is_kept(r + 1) ? 0xFFFFu : 0;
        const T* next = r + 1 < rows ? in[first + r + 1] + begin : row;
        for (int64_t j = 0; j < count; ++j)
          out[j].bits = (row[j].bits & low_mask) | (next[j].bits & high_mask) << 16;
      } else if (is_kept(r)) {
        for (int64_t j = 0; j < count; ++j) out[j] = static_cast<Packed>(row[j]);
      } else {
        std::fill_n(out, count, Packed{});
      }
      std::fill(out + count, out + panels.width, Packed{});
    }
  }
}

// Segment ids as wide as the scores, so that they are compared lane by lane.
template <class C>
using SegmentId = std::conditional_t<sizeof(C) == 8, int64_t, int32_t>;

struct KeyRange {
  int64_t begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

// The keys that some query in [begin, end) may see: a superset, as narrow as segments in order make
// it.
template <class T>
KeyRange visible_keys(const AttentionHead<T>& head, int64_t begin, int64_t end) {
  KeyRange range{0, head.keys};
  if (head.is_causal) range.end = std::clamp<int64_t>(end + head.query_offset, 0, head.keys);
  if (!head.query_segments) return range;
  int32_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
  for (int64_t q = begin; q < end; ++q) {
    if (head.query_segments[q] == 0) continue;
    low = std::min(low, head.query_segments[q]);
    high = std::max(high, head.query_segments[q]);
  }
  const auto is_seen = [&](int64_t k) {
    const int32_t id = head.key_segments[k];
    return id != 0 && low <= id && id <= high;
  };
  while (!range.empty() && !is_seen(range.begin)) ++range.begin;
  while (!range.empty() && !is_seen(range.end - 1)) --range.end;
  return range;
}

// Bias and segments of a head, readable for every key of a whole panel.
template <class T>
struct PaddedHead {
  using C = Compute<T>;
  int64_t padded_keys = 0;
  int64_t first_relative = 0,
          num_relative = 0;  // what `bias` covers, at least what the head's panels ask for
  C* bias = nullptr;
  SegmentId<C>* segments = nullptr;
  uint8_t* kept = nullptr;  // per key, when the queries share the dropout mask

  PaddedHead(const AttentionHead<T>& head, int64_t query_begin, int64_t query_end,
             Scratch& scratch) {
    padded_keys = round_up(head.keys, kPanel<typename PackedOf<T>::type>);
    first_relative = -(query_end - 1 + head.query_offset);
    num_relative = padded_keys + query_end - query_begin;
    if (head.bias) {
      bias = scratch.take<C>(num_relative);
      for (int64_t i = 0; i < num_relative; ++i) {
        const int64_t at = first_relative + i - head.first_relative;
        bias[i] = 0 <= at && at < head.num_relative ? head.bias[at] : C{0};
      }
    }
    if (head.key_segments) {
      segments = scratch.take<SegmentId<C>>(padded_keys);
      std::copy_n(head.key_segments, head.keys, segments);
      std::fill(segments + head.keys, segments + padded_keys, SegmentId<C>{0});
    }
    if (head.dropout.threshold > 0 && head.dropout.is_shared) {
      uint32_t* bits = scratch.take<uint32_t>(head.keys);
      kept = scratch.take<uint8_t>(head.keys);
      fill_random_words(head.dropout.key, head.dropout.first_index, bits, head.keys);
      for (int64_t k = 0; k < head.keys; ++k) kept[k] = (bits[k] >> 8) >= head.dropout.threshold;
    }
  }

  // Position in `bias` of key 0 for this query.
  int64_t bias_at(const AttentionHead<T>& head, int64_t query) const {
    return -(query + head.query_offset) - first_relative;
  }
};

// What one query sees of the keys [begin, begin + count), count a whole number of panels.
template <class T>
struct QueryRow {
  using C = Compute<T>;
  const C* bias = nullptr;                 // of key begin + i at [i]
  const SegmentId<C>* segments = nullptr;  // likewise
  SegmentId<C> segment = 0;
  const uint32_t* bits = nullptr;  // random words, when each weight has its own

  QueryRow(const AttentionHead<T>& head, const PaddedHead<T>& padded, int64_t query, int64_t begin,
           int64_t count, C* scores, uint32_t* bits_buffer) {
    if (padded.bias) bias = padded.bias + padded.bias_at(head, query) + begin;
    int64_t limit = head.keys - begin;
    if (head.is_causal) limit = std::min(limit, query + head.query_offset + 1 - begin);
    if (padded.segments) {
      segments = padded.segments + begin;
      segment = head.query_segments[query];
      if (segment == 0) limit = 0;
    }
    limit = std::clamp<int64_t>(limit, 0, count);
    std::fill(scores + limit, scores + count, -std::numeric_limits<C>::infinity());
    if (head.dropout.threshold > 0 && !head.dropout.is_shared) {
      bits = bits_buffer;
      const auto first = static_cast<uint64_t>(query * head.keys + begin);
      fill_random_words(head.dropout.key, head.dropout.first_index + first, bits_buffer, limit);
    }
  }

  // The scores at [i] with bias; minus infinity where the key is masked out.
  Vector<C> masked(Vector<C> scores, int64_t i) const {
    if (bias) scores += load(bias + i);
    if (segments) {
      const Vector<C> nothing = broadcast(-std::numeric_limits<C>::infinity());
      scores = load(segments + i) == broadcast(segment) ? scores : nothing;
    }
    return scores;
  }

  // Zero where the weight at [i] is dropped.
  Vector<C> dropped(Vector<C> weights, int64_t i, uint32_t threshold) const {
    if (!bits) return weights;
    Vector<SegmentId<C>> words;
    if constexpr (sizeof(C) == sizeof(uint32_t))
      words = std::bit_cast<Vector<SegmentId<C>>>(load(bits + i) >> 8);
    else
      for (int j = 0; j < kLanes<C>; ++j) words[j] = bits[i + j] >> 8;
    return words >= broadcast(static_cast<SegmentId<C>>(threshold)) ? weights : Vector<C>{};
  }
};

}  // namespace stmoe::inline STMOE_CPU_LEVEL
