// SPDX-License-Identifier: Apache-2.0
#include "lib/data/segment_stream.h"

#include <map>
#include <set>

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;
using Length = SegmentStream::Length;

namespace {

SegmentStream open_stream(const Path& path, int64_t raw_length, Length length, uint64_t seed = 1) {
  return SegmentStream(Corpus::open(path), RandomKey{seed}, raw_length, length);
}

std::vector<int32_t> take_tokens(SegmentStream& stream, size_t count) {
  std::vector<int32_t> all, segment;
  while (all.size() < count && stream.next(segment))
    all.insert(all.end(), segment.begin(), segment.end());
  return all;
}

}  // namespace

TEST_CASE("an epoch has every document once, the next one in another order",
          "[data][segment_stream]") {
  TemporaryFolder folder;
  // 256 documents, two groups an epoch, of one token each: token 3 + i is document i.
  const Path path = write_corpus(folder / "a.h5", std::vector<int64_t>(256, 1));
  SegmentStream stream = open_stream(path, 16, Length::endless);
  const auto first = take_tokens(stream, 256), second = take_tokens(stream, 256);
  REQUIRE(first.size() == 256);
  CHECK(std::set<int32_t>(first.begin(), first.end()).size() == 256);
  CHECK(std::set<int32_t>(second.begin(), second.end()).size() == 256);
  CHECK(first != second);
  CHECK_FALSE(std::is_sorted(first.begin(), first.end()));
  SegmentStream other = open_stream(path, 16, Length::endless, 2);
  CHECK(take_tokens(other, 256) != first);
}

TEST_CASE("documents of a group are joined and cut into segments, the group's last may be short",
          "[data][segment_stream]") {
  TemporaryFolder folder;
  const Path path = write_corpus(folder / "a.h5", std::vector<int64_t>(128, 10));
  SegmentStream stream = open_stream(path, 300, Length::endless);
  std::vector<size_t> lengths;
  std::vector<int32_t> segment;
  for (int i = 0; i < 6; ++i) {
    REQUIRE(stream.next(segment));
    lengths.push_back(segment.size());
  }
  CHECK(lengths == std::vector<size_t>{300, 300, 300, 300, 80, 300});
}

TEST_CASE("a group of a small corpus runs on into the next epoch", "[data][segment_stream]") {
  TemporaryFolder folder;
  const Path path = write_corpus(folder / "a.h5", std::vector<int64_t>(5, 1));
  SegmentStream stream = open_stream(path, 128, Length::endless);
  std::vector<int32_t> segment;
  REQUIRE(stream.next(segment));
  REQUIRE(segment.size() == 128);
  for (size_t epoch = 0; epoch < 25; ++epoch)
    CHECK(std::set<int32_t>(segment.begin() + static_cast<long>(5 * epoch),
                            segment.begin() + static_cast<long>(5 * epoch + 5))
              .size() == 5);
}

TEST_CASE("a long document gives one aligned chunk of 65536 tokens", "[data][segment_stream]") {
  TemporaryFolder folder;
  const int64_t length = 2 * 65536 + 1000;
  const Path path = write_corpus(folder / "a.h5", {length}, t5_vocabulary());
  SegmentStream stream = open_stream(path, 70000, Length::endless);
  const auto tokens = take_tokens(stream, 40 * 65536);
  std::map<int32_t, int> starts;
  for (size_t i = 0; i < tokens.size();) {
    const int32_t start = tokens[i];
    ++starts[start];
    const size_t chunk = start == static_cast<int32_t>(3 + 131072 % 30000) ? 1000 : 65536;
    for (size_t j = 0; j < chunk && i < tokens.size(); ++j, ++i)
      REQUIRE(tokens[i] == 3 + (start - 3 + static_cast<int32_t>(j)) % 30000);
  }
  // Chunks begin at tokens 0, 65536 and 131072 of the document, and each occurs.
  CHECK(starts.size() == 3);
  CHECK(starts.count(3) == 1);
  CHECK(starts.count(3 + 65536 % 30000) == 1);
}

TEST_CASE("a stream of one epoch ends, and goes on from any position as before",
          "[data][segment_stream]") {
  TemporaryFolder folder;
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 300; ++i) lengths.push_back(1 + i % 17);
  const Path path = write_corpus(folder / "a.h5", lengths);
  SegmentStream stream = open_stream(path, 70, Length::one_epoch);
  std::vector<SegmentPosition> positions;
  std::vector<std::vector<int32_t>> segments;
  std::vector<int32_t> segment;
  for (positions.push_back(stream.position()); stream.next(segment);
       positions.push_back(stream.position()))
    segments.push_back(segment);
  size_t total = 0;
  for (const auto& one : segments) total += one.size();
  CHECK(total == stream.corpus().num_tokens());
  CHECK_FALSE(stream.next(segment));
  for (size_t i = segments.size(); i-- > 0;) {
    SegmentStream again = open_stream(path, 70, Length::one_epoch);
    again.restore(positions[i]);
    REQUIRE(again.next(segment));
    CHECK(segment == segments[i]);
  }
}
