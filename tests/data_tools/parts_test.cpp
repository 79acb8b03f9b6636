// SPDX-License-Identifier: Apache-2.0
// The smaller parts of packing and vocabulary training.
#include <atomic>

#include "data_tools/corpus/hash_set.h"
#include "data_tools/corpus/ordered_pipeline.h"
#include "data_tools/corpus/part.h"
#include "data_tools/vocabulary/sentence_sample.h"
#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

std::function<std::optional<int>()> count_to(int limit) {
  return [limit, next = 0]() mutable -> std::optional<int> {
    if (next == limit) return std::nullopt;
    return next++;
  };
}

}  // namespace

TEST_CASE("results come in the order of reading, with any number of workers",
          "[data_tools][pipeline]") {
  for (int workers : {1, 2, 7}) {
    OrderedPipeline<int, int> pipeline(
        count_to(500),
        [](int number) {
          if (number % 10 == 3) std::this_thread::sleep_for(std::chrono::microseconds(300));
          return number * number;
        },
        workers);
    for (int i = 0; i < 500; ++i) REQUIRE(pipeline.next() == i * i);
    CHECK_FALSE(pipeline.next());
    CHECK_FALSE(pipeline.next());
  }
}

TEST_CASE("a failure is thrown in its place", "[data_tools][pipeline]") {
  OrderedPipeline<int, int> pipeline(
      count_to(100),
      [](int number) {
        if (number == 40 || number == 41) throw InputError(format("item {}", number));
        return number;
      },
      3);
  for (int i = 0; i < 40; ++i) REQUIRE(pipeline.next() == i);
  require_error(ExitCode::input, {"item 40"}, [&] { pipeline.next(); });

  int next = 0;
  OrderedPipeline<int, int> reading(
      [&]() -> std::optional<int> {
        if (next == 25) throw InputError("truncated");
        return next++;
      },
      [](int number) { return number; }, 2);
  for (int i = 0; i < 25; ++i) REQUIRE(reading.next() == i);
  require_error(ExitCode::input, {"truncated"}, [&] { reading.next(); });
}

TEST_CASE("a pipeline can be dropped at any time and reads only a little ahead",
          "[data_tools][pipeline]") {
  std::atomic<int> num_read = 0;
  {
    OrderedPipeline<int, int> pipeline([&]() -> std::optional<int> { return num_read++; },
                                       [](int number) { return number; }, 2);
    for (int i = 0; i < 10; ++i) pipeline.next();
  }
  CHECK(num_read.load() < 10 + 20);
}

TEST_CASE("a hash set remembers what it was given", "[data_tools][hash_set]") {
  HashSet set;
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 20000; ++i) REQUIRE(set.insert(hash128(std::to_string(i))) == (round == 0));
  CHECK(set.size() == 20000);
  CHECK(set.insert(Hash128{}));
  CHECK_FALSE(set.insert(Hash128{}));
}

TEST_CASE("a part gives back its documents and is complete only when finished",
          "[data_tools][part]") {
  TemporaryFolder folder;
  const Path path = folder / "part";
  CorpusCounts counts;
  counts.documents = 2;
  counts.tokens = 5;
  counts.pages[static_cast<size_t>(PageFate::brace)] = 3;
  {
    PartWriter writer(path);
    writer.append(std::vector<int32_t>{7, 8, 9}, 11, Hash128{1, 2});
    writer.append(std::vector<int32_t>{70000, 2}, 12, Hash128{3, 4});
    CHECK_FALSE(PartReader::is_complete(path));
    writer.finish(counts);
  }
  CHECK(PartReader::is_complete(path));
  PartReader reader(path);
  CHECK(reader.counts().to_json() == counts.to_json());
  PartDocument document;
  REQUIRE(reader.next(document));
  CHECK(document.tokens == std::vector<int32_t>{7, 8, 9});
  CHECK(document.text_bytes == 11);
  CHECK(document.hash == Hash128{1, 2});
  REQUIRE(reader.next(document));
  CHECK(document.tokens == std::vector<int32_t>{70000, 2});
  CHECK_FALSE(reader.next(document));

  const std::string tokens = read_file(folder / "part.tokens");
  write_file_atomically(folder / "part.tokens", tokens.substr(0, tokens.size() - 1));
  PartReader cut(path);
  REQUIRE(cut.next(document));
  require_error(ExitCode::input, {"part.tokens", "truncated"}, [&] { cut.next(document); });
}

TEST_CASE("a sample has the asked size, in order, and is the same every time",
          "[data_tools][sample]") {
  auto draw = [](uint64_t bytes) {
    SentenceSample sample(bytes);
    for (int i = 1000; i < 3000; ++i) sample.add_document(format("sentence {}\n\nsecond {}", i, i));
    CHECK(sample.num_sentences_seen() == 4000);
    return sample.take();
  };
  const auto all = draw(1 << 20), some = draw(10000);
  CHECK(all.size() == 4000);
  CHECK(all.front() == "sentence 1000");
  CHECK(all[1] == "second 1000");
  uint64_t bytes = 0;
  for (const std::string& one : some) bytes += one.size();
  CHECK(bytes <= 10000);
  CHECK(bytes > 9900);
  CHECK(some == draw(10000));
  auto at = all.begin();
  for (const std::string& one : some) {
    at = std::find(at, all.end(), one);
    REQUIRE(at != all.end());
  }
}

TEST_CASE("long lines are cut between words", "[data_tools][sample]") {
  SentenceSample sample(1 << 20);
  std::string line;
  for (int i = 0; i < 3000; ++i) line += format("word{} ", i);
  sample.add_document(line);
  std::string joined;
  for (const std::string& one : sample.take()) {
    CHECK(one.size() <= SentenceSample::kLongestSentence);
    joined += one + " ";
  }
  CHECK(joined.substr(0, line.size()) == line);
}
