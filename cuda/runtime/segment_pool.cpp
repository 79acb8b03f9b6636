// SPDX-License-Identifier: Apache-2.0
// Best fit; free neighbours in a segment are joined at once.
#include "cuda/runtime/segment_pool.h"

#include <algorithm>
#include <iterator>

#include "lib/base/error.h"

namespace stmoe::gpu {
namespace {

size_t round_up(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

}  // namespace

void SegmentPool::set_free(Pieces::iterator piece, bool is_free) {
  piece->second.is_free = is_free;
  const FreeKey key{piece->second.bytes, piece->first};
  if (is_free)
    free_of(piece->second).insert(key);
  else
    free_of(piece->second).erase(key);
}

bool SegmentPool::take_segment(size_t bytes, bool is_small) {
  bytes = is_small ? kSmallSegment : round_up(bytes, kLargeMultiple);
  std::byte* data = system_.take(bytes);
  if (!data) return false;
  taken_ += bytes;
  const auto [piece, is_new] =
      pieces_.emplace(data, Piece{.bytes = bytes, .is_small = is_small, .is_first = true});
  STMOE_CHECK(is_new, "device memory: the system gave an address twice");
  set_free(piece, true);
  return true;
}

SegmentPool::FreePieces::iterator SegmentPool::find_free(size_t bytes, bool is_small) {
  FreePieces& free = free_[is_small];
  const auto found = free.lower_bound({bytes, nullptr});
  const bool fits =
      found != free.end() &&
      (is_small || found->first - bytes <= std::max(found->first / kMostUnused, kLargeMultiple));
  return fits ? found : free.end();
}

std::byte* SegmentPool::allocate(size_t bytes, bool may_trim) {
  bytes = round_up(std::max<size_t>(bytes, 1), kAlignment);
  const bool is_small = bytes <= kMostSmall;
  auto found = find_free(bytes, is_small);
  if (found == free_[is_small].end()) {
    // Unused segments beside a large new one would be memory twice.
    if (may_trim && bytes >= kTrimsBefore) trim();
    bool has_room = take_segment(bytes, is_small);
    if (!has_room && may_trim) {
      trim();
      has_room = take_segment(bytes, is_small);
    }
    if (!has_room) return nullptr;
    found = find_free(bytes, is_small);
  }
  const auto piece = pieces_.find(found->second);
  set_free(piece, false);
  if (const size_t rest = piece->second.bytes - bytes; is_small && rest > 0) {
    piece->second.bytes = bytes;
    const auto next = pieces_.emplace(piece->first + bytes, Piece{.bytes = rest, .is_small = true});
    set_free(next.first, true);
  }
  in_use_ += piece->second.bytes;
  return piece->first;
}

SegmentPool::Pieces::iterator SegmentPool::join_with_next(Pieces::iterator piece) {
  const auto next = std::next(piece);
  if (next == pieces_.end() || next->second.is_first || !next->second.is_free ||
      !piece->second.is_free)
    return piece;
  set_free(next, false);
  set_free(piece, false);
  piece->second.bytes += next->second.bytes;
  pieces_.erase(next);
  set_free(piece, true);
  return piece;
}

void SegmentPool::release(std::byte* data) {
  const auto piece = pieces_.find(data);
  STMOE_CHECK(piece != pieces_.end() && !piece->second.is_free,
              "device memory: released what was not in use");
  in_use_ -= piece->second.bytes;
  set_free(piece, true);
  join_with_next(piece);
  if (!piece->second.is_first) join_with_next(std::prev(piece));
}

bool SegmentPool::is_whole_segment(Pieces::const_iterator piece) const {
  const auto next = std::next(piece);
  return piece->second.is_first && (next == pieces_.end() || next->second.is_first);
}

void SegmentPool::trim() {
  for (auto piece = pieces_.begin(); piece != pieces_.end();) {
    if (!piece->second.is_free || !is_whole_segment(piece)) {
      ++piece;
      continue;
    }
    set_free(piece, false);
    taken_ -= piece->second.bytes;
    system_.give_back(piece->first);
    piece = pieces_.erase(piece);
  }
}

}  // namespace stmoe::gpu
