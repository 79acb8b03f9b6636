// SPDX-License-Identifier: Apache-2.0
// stmoe-data inspect as a user runs it.
#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include "tests/cli/process.h"
#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

const std::string kVocabulary = source_file("recipes/vocabularies/t5/spiece.model").string();

ProcessOutcome inspect(const Path& corpus, std::vector<std::string> rest = {}) {
  rest.insert(rest.begin(), {"inspect", corpus.string()});
  return run_process("stmoe-data", rest);
}

void require_refused(const ProcessOutcome& outcome, int exit_code,
                     const std::vector<std::string>& parts) {
  INFO("standard error: " << outcome.errors);
  REQUIRE(outcome.exit_code == exit_code);
  CHECK(outcome.output.empty());
  for (const std::string& part : parts) {
    INFO("expected in it: " << part);
    CHECK(outcome.errors.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("inspect counts what is in a corpus", "[data_tools][inspect]") {
  TestFolder folder("inspect");
  const Path path = folder / "a.h5";
  // Entropy by hand: 4 times token 10, twice token 11, once each 12 and 2.
  {
    CorpusWriter writer(path, t5_vocabulary());
    writer.append(std::vector<int32_t>{10, 11, 10}, 9);
    writer.append(std::vector<int32_t>{10}, 2);
    writer.append(std::vector<int32_t>{10, 11, 12, 2}, 10);
    writer.finish();
  }
  const ProcessOutcome outcome = inspect(path, {"--json"});
  INFO(outcome.errors);
  REQUIRE(outcome.exit_code == 0);
  const auto json = nlohmann::json::parse(outcome.output);
  CHECK(json["documents"] == 3);
  CHECK(json["tokens"] == 8);
  CHECK(json["text_bytes"] == 21);
  CHECK(json["distinct_tokens"] == 4);
  CHECK(json["document_tokens"]["min"] == 1);
  CHECK(json["document_tokens"]["median"] == 3);
  CHECK(json["document_tokens"]["max"] == 4);
  CHECK(json["unknown_fraction"] == 0.125);
  CHECK(std::abs(json["unigram_entropy"].get<double>() - 1.75 * std::log(2.0)) < 1e-12);
  CHECK(json["vocabulary"]["name"] == "spiece.model");
  CHECK(json["vocabulary"]["size"] == 32100);
  CHECK(json["vocabulary"]["hash"] == t5_vocabulary().hash());
  CHECK_FALSE(json.contains("samples"));
}

TEST_CASE("inspect shows documents and an example of span corruption", "[data_tools][inspect]") {
  TestFolder folder("samples");
  const Path path = folder / "a.h5";
  const std::string text = "The quick brown fox jumps over the lazy dog, and then it sleeps.";
  {
    CorpusWriter writer(path, t5_vocabulary());
    for (int i = 0; i < 10; ++i)
      writer.append(t5_vocabulary().encode(format("{} {}", text, i)), text.size());
    writer.finish();
  }
  const ProcessOutcome outcome =
      inspect(path, {"--json", "--vocabulary", kVocabulary, "--documents", "2"});
  INFO(outcome.errors);
  REQUIRE(outcome.exit_code == 0);
  const auto json = nlohmann::json::parse(outcome.output);
  REQUIRE(json["samples"].size() == 2);
  CHECK(json["samples"][0]["text"] == text + " 0");
  CHECK(json["samples"][1]["document"] == 5);
  CHECK(json["samples"][1]["text"] == text + " 5");
  const auto inputs = json["span_corruption"]["inputs"].get<std::string>();
  const auto targets = json["span_corruption"]["targets"].get<std::string>();
  CHECK(inputs.find("<extra_id_0>") != std::string::npos);
  CHECK(targets.starts_with("<extra_id_0>"));
  const ProcessOutcome table = inspect(path, {"--vocabulary", kVocabulary, "--documents", "1"});
  CHECK(table.output.find(text) != std::string::npos);
  CHECK(table.output.find("nats per token") != std::string::npos);
}

TEST_CASE("inspect refuses what is no corpus", "[data_tools][inspect][bad_input]") {
  TestFolder folder("refused");
  require_refused(inspect(folder / "none.h5"), 3, {"none.h5", "does not exist"});
  require_refused(inspect(folder.write("text.h5", "text")), 3, {"text.h5", "not an HDF5 file"});
  const Path good = write_corpus(folder / "good.h5", std::vector<int64_t>(100, 1000));
  const std::string bytes = read_file(good);
  require_refused(inspect(folder.write("cut.h5", bytes.substr(0, bytes.size() / 2))), 3,
                  {"cut.h5", "truncated"});
  std::string damaged = bytes;
  damaged[bytes.size() / 2] ^= 1;
  require_refused(inspect(folder.write("damaged.h5", damaged)), 3, {"damaged.h5", "checksum"});
  require_refused(inspect(good, {"--documents", "1"}), 2, {"--documents", "--vocabulary"});
  require_refused(
      inspect(good, {"--vocabulary", source_file("tests/data/files/seqio_test.model").string()}), 3,
      {"good.h5", "another vocabulary", t5_vocabulary().hash()});
}
