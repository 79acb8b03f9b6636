// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/segment_pool.h"

#include <map>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/base/random.h"

namespace stmoe::gpu {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// A system with so many bytes, whose addresses are never touched.
size_t room = 0, returned = 0;
std::map<std::byte*, size_t> taken;

std::byte* take(size_t bytes) {
  static uintptr_t next = 1 << 20;
  if (bytes > room) return nullptr;
  room -= bytes;
  auto* data = reinterpret_cast<std::byte*>(next);
  next += bytes;  // neighbours: segments must not be joined all the same
  taken[data] = bytes;
  return data;
}

void give_back(std::byte* data) {
  REQUIRE(taken.contains(data));
  room += taken[data];
  taken.erase(data);
  ++returned;
}

SegmentPool pool_with(size_t bytes) {
  room = bytes;
  returned = 0;
  taken.clear();
  return SegmentPool({take, give_back});
}

}  // namespace

TEST_CASE("small pieces share segments, and free neighbours are joined", "[cuda][memory]") {
  SegmentPool pool = pool_with(256 * kMiB);
  std::byte* const a = pool.allocate(3 * kMiB, true);
  CHECK(taken.size() == 1);
  CHECK(pool.bytes_taken() == SegmentPool::kSmallSegment);
  CHECK(reinterpret_cast<uintptr_t>(a) % SegmentPool::kAlignment == 0);
  CHECK(pool.allocate(100, true) == a + 3 * kMiB);
  CHECK(pool.allocate(1, true) == a + 3 * kMiB + SegmentPool::kAlignment);
  pool.release(a);
  CHECK(pool.allocate(2 * kMiB, true) == a);
  CHECK(pool.allocate(kMiB, true) == a + 2 * kMiB);
  pool.release(a);
  pool.release(a + 2 * kMiB);
  pool.release(a + 3 * kMiB);
  pool.release(a + 3 * kMiB + SegmentPool::kAlignment);
  CHECK(pool.bytes_in_use() == 0);
  // Joined again: eight of the largest small pieces fill the segment.
  for (int i = 0; i < 8; ++i) CHECK(pool.allocate(8 * kMiB, true) != nullptr);
  CHECK(taken.size() == 1);
}

TEST_CASE("a large piece has a segment of its own, kept for the next of its size",
          "[cuda][memory]") {
  SegmentPool pool = pool_with(256 * kMiB);
  std::byte* const a = pool.allocate(33 * kMiB, true);
  CHECK(pool.bytes_taken() == 34 * kMiB);
  CHECK(pool.bytes_in_use() == 34 * kMiB);
  pool.release(a);
  CHECK(pool.allocate(31 * kMiB, true) == a);
  CHECK(pool.bytes_in_use() == 34 * kMiB);
  pool.release(a);
  // Too little for it: another one.
  CHECK(pool.allocate(20 * kMiB, true) != a);
  CHECK(pool.bytes_taken() == 54 * kMiB);
  pool.trim();
  CHECK(pool.bytes_taken() == 20 * kMiB);
  CHECK(returned == 1);
}

TEST_CASE("unused segments go back where the system has no more room, but not while recorded",
          "[cuda][memory]") {
  SegmentPool pool = pool_with(20 * kMiB);
  std::byte* const a = pool.allocate(12 * kMiB, true);
  CHECK(pool.allocate(12 * kMiB, true) == nullptr);
  pool.release(a);
  CHECK(pool.allocate(16 * kMiB, false) == nullptr);
  CHECK(pool.allocate(16 * kMiB, true) != nullptr);
  CHECK(pool.bytes_taken() == 16 * kMiB);
}

TEST_CASE("all room can be had again, in whatever pieces it was used before", "[cuda][memory]") {
  SegmentPool pool = pool_with(1000 * kMiB);
  std::vector<std::byte*> pieces;
  for (int i = 0; i < 10; ++i) pieces.push_back(pool.allocate(100 * kMiB, true));
  for (size_t i = 0; i < 10; i += 2) pool.release(pieces[i]);
  // Half is free, none of it next to another free piece.
  CHECK(pool.allocate(500 * kMiB, true) != nullptr);
}

TEST_CASE("a large segment is taken after unused ones went back", "[cuda][memory]") {
  SegmentPool pool = pool_with(1024 * kMiB);
  pool.release(pool.allocate(100 * kMiB, true));
  pool.release(pool.allocate(300 * kMiB, true));
  CHECK(pool.bytes_taken() == 300 * kMiB);
}

TEST_CASE("pieces never overlap, whatever the order of asking and releasing", "[cuda][memory]") {
  SegmentPool pool = pool_with(2048 * kMiB);
  RandomStream random{RandomKey{7}};
  std::map<std::byte*, size_t> alive;
  for (int i = 0; i < 3000; ++i) {
    if (alive.size() > 20 || (!alive.empty() && random.below(2) == 0)) {
      auto chosen = std::next(alive.begin(), static_cast<long>(random.below(alive.size())));
      pool.release(chosen->first);
      alive.erase(chosen);
      continue;
    }
    const size_t bytes = random.below(i % 3 ? 20 * kMiB : 5000);
    std::byte* const data = pool.allocate(bytes, true);
    REQUIRE(data != nullptr);
    const auto next = alive.lower_bound(data);
    if (next != alive.end()) REQUIRE(data + bytes <= next->first);
    if (next != alive.begin()) REQUIRE(std::prev(next)->first + std::prev(next)->second <= data);
    alive[data] = bytes;
  }
  for (const auto& [data, bytes] : alive) pool.release(data);
  pool.trim();
  CHECK(pool.bytes_taken() == 0);
  CHECK(taken.empty());
  CHECK_THROWS_AS(pool.release(nullptr), BugError);
}

}  // namespace stmoe::gpu
