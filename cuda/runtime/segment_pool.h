// SPDX-License-Identifier: Apache-2.0
// Device memory asked for and released again and again: taken from the system in segments that are
// kept when they are done with. Small pieces divide segments among them; a large one has a segment
// of its own, so that what is released can always go back whole: the system joins it to whatever is
// asked for next, and no room is lost in between. Plain C++; the system is given, so that tests
// need no GPU. Not thread-safe.
//
// Memory released is given to the next who asks: right where all work is done in the order in which
// it is asked for.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace stmoe::gpu {

class SegmentPool {
 public:
  static constexpr size_t kAlignment = 512;
  static constexpr size_t kMostSmall = size_t{8} << 20;      // pieces in shared segments
  static constexpr size_t kSmallSegment = size_t{64} << 20;  // of small pieces
  static constexpr size_t kLargeMultiple = size_t{2} << 20;  // sizes of all other segments
  static constexpr size_t kTrimsBefore = size_t{256} << 20;  // a segment of this size
  // A kept segment serves a large piece that leaves at most this part of it unused.
  static constexpr size_t kMostUnused = 8;

  struct System {
    std::byte* (*take)(size_t bytes);  // null where there is no room
    void (*give_back)(std::byte* data);
  };
  explicit SegmentPool(System system) : system_(system) {}

  // Null where the system has no room even after unused segments went back. `may_trim`: whether
  // they may (not while work on them is recorded and yet to run).
  std::byte* allocate(size_t bytes, bool may_trim);
  void release(std::byte* data);
  // Gives unused segments back.
  void trim();

  size_t bytes_in_use() const { return in_use_; }
  size_t bytes_taken() const { return taken_; }

 private:
  struct Piece {
    size_t bytes = 0;
    bool is_free = false, is_small = false, is_first = false;  // first of its segment
  };
  using Pieces = std::map<std::byte*, Piece>;
  using FreeKey = std::pair<size_t, std::byte*>;
  using FreePieces = std::set<FreeKey>;

  FreePieces& free_of(const Piece& piece) { return free_[piece.is_small]; }
  FreePieces::iterator find_free(size_t bytes, bool is_small);
  bool take_segment(size_t bytes, bool is_small);
  void set_free(Pieces::iterator piece, bool is_free);
  bool is_whole_segment(Pieces::const_iterator piece) const;
  Pieces::iterator join_with_next(Pieces::iterator piece);

  System system_;
  Pieces pieces_;
  FreePieces free_[2];  // large, small
  size_t in_use_ = 0, taken_ = 0;
};

}  // namespace stmoe::gpu
