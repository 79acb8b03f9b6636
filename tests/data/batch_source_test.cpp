// SPDX-License-Identifier: Apache-2.0
#include "lib/data/batch_source.h"

#include <map>

#include <nlohmann/json.hpp>

#include "lib/tensor/arena.h"
#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

DataConfig small_config(const std::vector<Path>& train) {
  DataConfig config;
  for (const Path& path : train) {
    config.train.emplace_back();
    config.train.back().path = ConfigPath(path);
  }
  config.input_length = 64;
  config.batch_size = 3;
  return config;
}

// Short documents, so that groups end with short segments and rows hold several examples.
Path short_documents(const Path& path, int64_t count, int32_t first = 0) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < count; ++i) lengths.push_back(1 + i % 3);
  return write_corpus(path, lengths, t5_vocabulary(), first);
}

// All numbers of a batch, to compare bit by bit.
std::vector<int32_t> contents(const Batch& batch) {
  std::vector<int32_t> all;
  for (const Tensor* tensor :
       {&batch.encoder_tokens_BL, &batch.encoder_segments_BL, &batch.decoder_inputs_BT,
        &batch.targets_BT, &batch.decoder_segments_BT}) {
    all.push_back(static_cast<int32_t>(tensor->dim(0)));
    all.insert(all.end(), tensor->span<int32_t>().begin(), tensor->span<int32_t>().end());
  }
  all.push_back(static_cast<int32_t>(batch.num_input_tokens));
  all.push_back(static_cast<int32_t>(batch.num_target_tokens));
  return all;
}

std::map<int32_t, int> ordinary_tokens(const Batch& batch) {
  std::map<int32_t, int> seen;
  for (const Tensor& tensor : {batch.encoder_tokens_BL, batch.targets_BT})
    for (int32_t token : tensor.span<int32_t>())
      if (token > kEosId && token < 32000) ++seen[token];
  return seen;
}

}  // namespace

TEST_CASE("batches have the shapes, segments and counts that were promised",
          "[data][batch_source]") {
  TemporaryFolder folder;
  const Path corpus = write_corpus(folder / "a.h5", std::vector<int64_t>(200, 50));
  BatchSource source(small_config({corpus}), t5_vocabulary(), 1);
  const Batch batch = source.next();
  CHECK(batch.encoder_tokens_BL.shape() == Shape{3, 64});
  CHECK(batch.encoder_segments_BL.shape() == Shape{3, 64});
  CHECK(batch.decoder_inputs_BT.shape() == Shape{3, 14});  // computed from input_length
  CHECK(batch.targets_BT.shape() == Shape{3, 14});
  CHECK(batch.decoder_segments_BT.shape() == Shape{3, 14});
  CHECK(batch.targets_BT.dtype() == DType::i32);
  // Full segments fill both sides, so there is no padding.
  CHECK(batch.num_input_tokens == 3 * 64);
  CHECK(batch.num_target_tokens == 3 * 14);
  const auto inputs = batch.encoder_tokens_BL.span<int32_t>();
  const auto targets = batch.targets_BT.span<int32_t>();
  const auto shifted = batch.decoder_inputs_BT.span<int32_t>();
  for (size_t row = 0; row < 3; ++row) {
    CHECK(inputs[row * 64 + 63] == kEosId);
    CHECK(targets[row * 14] == 32099);
    CHECK(targets[row * 14 + 13] == kEosId);
    CHECK(shifted[row * 14] == 0);
    for (size_t i = 1; i < 14; ++i) CHECK(shifted[row * 14 + i] == targets[row * 14 + i - 1]);
  }
  for (int32_t segment : batch.encoder_segments_BL.span<int32_t>()) CHECK(segment == 1);
}

TEST_CASE("a wider target length is padded, and packing can be turned off",
          "[data][batch_source]") {
  TemporaryFolder folder;
  // One group holds 256 tokens: three full segments of 70 and one of 46.
  DataConfig config = small_config({write_corpus(folder / "a.h5", std::vector<int64_t>(128, 2))});
  config.target_length = 20;
  config.batch_size = 8;
  config.packing = false;
  BatchSource source(config, t5_vocabulary(), 1);
  const Batch batch = source.next();
  CHECK(batch.targets_BT.shape() == Shape{8, 20});
  CHECK(batch.num_target_tokens < 8 * 20);
  const auto segments = batch.encoder_segments_BL.span<int32_t>();
  CHECK(*std::max_element(segments.begin(), segments.end()) == 1);
  CHECK(segments[3 * 64 + 63] == 0);
}

TEST_CASE("short examples share a row", "[data][batch_source]") {
  TemporaryFolder folder;
  // Every group of 128 documents is one segment of 128 tokens: 116 inputs and 26 targets, four of
  // which fit in a row.
  DataConfig config = small_config({write_corpus(folder / "a.h5", std::vector<int64_t>(50, 1))});
  config.input_length = 512;
  BatchSource source(config, t5_vocabulary(), 1);
  const Batch batch = source.next();
  CHECK(batch.num_input_tokens == 3 * 4 * 116);
  CHECK(batch.num_target_tokens == 3 * 4 * 26);
  for (size_t row = 0; row < 3; ++row)
    for (size_t i = 0; i < 512; ++i) {
      const auto segment = static_cast<int32_t>(i < 464 ? i / 116 + 1 : 0);
      REQUIRE(batch.encoder_segments_BL.span<int32_t>()[row * 512 + i] == segment);
    }
}

TEST_CASE("a restored source goes on with the same bits, wherever it was cut",
          "[data][batch_source]") {
  TemporaryFolder folder;
  // Rows of several short examples of one corpus and rows of one long example of the other.
  DataConfig config =
      small_config({write_corpus(folder / "a.h5", std::vector<int64_t>(150, 1)),
                    write_corpus(folder / "b.h5", {500, 3, 40}, t5_vocabulary(), 9)});
  config.train[1].weight = 0.4;
  config.input_length = 512;
  const int num_batches = 40;
  int32_t most_examples_in_a_row = 0;
  std::vector<std::vector<int32_t>> expected;
  std::vector<std::string> positions;
  {
    BatchSource source(config, t5_vocabulary(), 5);
    for (int i = 0; i < num_batches; ++i) {
      positions.push_back(source.position());
      const Batch batch = source.next();
      expected.push_back(contents(batch));
      for (int32_t segment : batch.encoder_segments_BL.span<int32_t>())
        most_examples_in_a_row = std::max(most_examples_in_a_row, segment);
    }
  }
  CHECK(most_examples_in_a_row == 4);
  for (int cut = 0; cut < num_batches; ++cut) {
    INFO("cut after " << cut << " batches: " << positions[static_cast<size_t>(cut)]);
    BatchSource source(config, t5_vocabulary(), 5);
    source.restore(positions[static_cast<size_t>(cut)]);
    CHECK(source.position() == positions[static_cast<size_t>(cut)]);
    for (int i = cut; i < std::min(cut + 3, num_batches); ++i)
      REQUIRE(contents(source.next()) == expected[static_cast<size_t>(i)]);
  }
  // Back and forth in a running source.
  BatchSource source(config, t5_vocabulary(), 5);
  for (int cut : {30, 2, 17, 0, 39}) {
    source.next();
    source.restore(positions[static_cast<size_t>(cut)]);
    CHECK(contents(source.next()) == expected[static_cast<size_t>(cut)]);
  }
}

TEST_CASE("a position holds for another batch size", "[data][batch_source]") {
  TemporaryFolder folder;
  DataConfig config = small_config({write_corpus(folder / "a.h5", std::vector<int64_t>(300, 30))});
  BatchSource whole(config, t5_vocabulary(), 1);
  whole.next();
  const std::string position = whole.position();
  const Batch six[] = {whole.next(), whole.next()};
  config.batch_size = 6;
  BatchSource other(config, t5_vocabulary(), 1);
  other.restore(position);
  const Batch batch = other.next();
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 0; i < 64; ++i)
      REQUIRE(
          batch.encoder_tokens_BL.span<int32_t>()[static_cast<size_t>(row * 64 + i)] ==
          six[row / 3].encoder_tokens_BL.span<int32_t>()[static_cast<size_t>(row % 3 * 64 + i)]);
}

TEST_CASE("seeds give different streams, the same seed the same one", "[data][batch_source]") {
  TemporaryFolder folder;
  const DataConfig config = small_config({short_documents(folder / "a.h5", 400)});
  BatchSource a(config, t5_vocabulary(), 1), b(config, t5_vocabulary(), 1),
      c(config, t5_vocabulary(), 2);
  const auto first = contents(a.next());
  CHECK(contents(b.next()) == first);
  CHECK(contents(c.next()) != first);
}

TEST_CASE("several corpora are drawn by weight", "[data][batch_source]") {
  TemporaryFolder folder;
  // Tokens 3 .. 1002 in one corpus, 20003 .. 21002 in the other.
  DataConfig config = small_config(
      {write_corpus(folder / "a.h5", std::vector<int64_t>(100, 10)),
       write_corpus(folder / "b.h5", std::vector<int64_t>(100, 10), t5_vocabulary(), 20000)});
  config.train[0].weight = 3;
  config.train[1].weight = 1;
  config.packing = false;
  config.batch_size = 2000;
  BatchSource source(config, t5_vocabulary(), 1);
  const Batch batch = source.next();
  int from_first = 0;
  for (size_t row = 0; row < 2000; ++row)
    from_first += batch.encoder_tokens_BL.span<int32_t>()[row * 64] < 20000;
  CHECK(std::abs(from_first - 1500) < 100);  // standard deviation 19
}

TEST_CASE("an epoch of validation has every token once, the same for every seed",
          "[data][batch_source]") {
  TemporaryFolder folder;
  const Path corpus = write_corpus(folder / "a.h5", std::vector<int64_t>(300, 7));
  const DataConfig config = small_config({});
  ValidationSource source(config, t5_vocabulary(), corpus, 0);
  std::map<int32_t, int> seen;
  std::vector<std::vector<int32_t>> batches;
  int64_t rows = 0;
  while (auto batch = source.next()) {
    for (const auto& [token, count] : ordinary_tokens(*batch)) seen[token] += count;
    rows += batch->targets_BT.dim(0);
    batches.push_back(contents(*batch));
  }
  CHECK_FALSE(source.next());
  CHECK(seen.size() == 2100);
  CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& one) { return one.second == 1; }));
  CHECK(rows % 3 != 0);  // the last batch has fewer rows

  source.rewind();
  for (const auto& expected : batches) REQUIRE(contents(source.next().value()) == expected);
  ValidationSource two(config, t5_vocabulary(), corpus, 2);
  CHECK(contents(two.next().value()) == batches[0]);
  CHECK(contents(two.next().value()) == batches[1]);
  CHECK_FALSE(two.next());
  two.rewind();
  CHECK(contents(two.next().value()) == batches[0]);
}

TEST_CASE("batches outlive the arena step in which they were made", "[data][batch_source]") {
  TemporaryFolder folder;
  const Path corpus = write_corpus(folder / "a.h5", std::vector<int64_t>(30, 9));
  ValidationSource source(small_config({}), t5_vocabulary(), corpus, 0);
  StepArena arena;
  std::optional<Batch> batch;
  for (int step = 0; step < 2; ++step) {
    arena.begin_step("evaluate");
    batch = source.next();
    arena.end_step();
  }
  CHECK(batch->num_input_tokens > 0);
}

TEST_CASE("what goes wrong on the reading thread is thrown by next", "[data][batch_source]") {
  TemporaryFolder folder;
  const Path path = write_corpus(folder / "a.h5", std::vector<int64_t>(300, 500));
  {
    Hdf5File file = Hdf5File::open(path, Hdf5Access::read_write);
    file.dataset("tokens").write_rows(70000, std::vector<uint16_t>{65000});
    file.close();
  }
  BatchSource source(small_config({path}), t5_vocabulary(), 1);
  auto read_on = [&] {
    for (int i = 0; i < 2000; ++i) source.next();
  };
  require_error(ExitCode::input, {"a.h5", "id 65000"}, read_on);
  require_error(ExitCode::input, {"a.h5", "id 65000"}, read_on);
}

TEST_CASE("a source can be dropped at any time and moved", "[data][batch_source]") {
  TemporaryFolder folder;
  const DataConfig config = small_config({short_documents(folder / "a.h5", 400)});
  for (int taken = 0; taken < 8; ++taken) {
    BatchSource source(config, t5_vocabulary(), 1);
    for (int i = 0; i < taken; ++i) source.next();
    BatchSource moved = std::move(source);
    CHECK(moved.next().num_input_tokens > 0);
  }
}

TEST_CASE("corpora that do not fit the recipe are refused", "[data][batch_source]") {
  TemporaryFolder folder;
  const Path path = write_corpus(folder / "a.h5", {100, 100});
  require_error(ExitCode::input, {"a.h5", "another vocabulary"},
                [&] { BatchSource(small_config({path}), seqio_vocabulary(), 1); });
  require_error(ExitCode::input, {"none.h5", "does not exist"},
                [&] { BatchSource(small_config({folder / "none.h5"}), t5_vocabulary(), 1); });
  require_error(ExitCode::usage, {"data.train"},
                [&] { BatchSource(small_config({}), t5_vocabulary(), 1); });
}

TEST_CASE("a position of another run is refused", "[data][batch_source]") {
  TemporaryFolder folder;
  const Path a = write_corpus(folder / "a.h5", {100, 100}), b = write_corpus(folder / "b.h5", {99});
  const std::string position = BatchSource(small_config({a}), t5_vocabulary(), 1).position();
  CHECK(nlohmann::json::parse(position)["version"] == 1);
  auto restore = [&](const std::vector<Path>& train, const std::string& text) {
    return [&, train, text] { BatchSource(small_config(train), t5_vocabulary(), 1).restore(text); };
  };
  require_error(ExitCode::input, {"b.h5", "1 documents", "2"}, restore({b}, position));
  require_error(ExitCode::input, {"1 training corpora", "2"}, restore({a, b}, position));
  require_error(ExitCode::input, {"data position", "not readable"},
                restore({a}, "{\"version\": 1"));
  require_error(ExitCode::input, {"data position", "not readable"}, restore({a}, "{}"));
  require_error(ExitCode::input, {"version 7"}, restore({a}, "{\"version\": 7}"));
}
