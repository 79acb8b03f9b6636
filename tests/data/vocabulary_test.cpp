// SPDX-License-Identifier: Apache-2.0
#include "lib/data/vocabulary.h"

#include <nlohmann/json.hpp>

#include "lib/base/checksum.h"
#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

std::vector<nlohmann::json> encode_vectors() {
  std::ifstream file(source_file("tests/data/files/encode_vectors.jsonl"));
  std::vector<nlohmann::json> vectors;
  for (std::string line; std::getline(file, line);) vectors.push_back(nlohmann::json::parse(line));
  return vectors;
}

}  // namespace

TEST_CASE("T5's vocabulary has the published sizes and sentinels", "[data][vocabulary]") {
  const Vocabulary& t5 = t5_vocabulary();
  CHECK(t5.num_pieces() == 32000);
  CHECK(t5.size() == 32100);
  CHECK(t5.padded_size() == 32128);
  CHECK(t5.sentinel(0) == 32099);
  CHECK(t5.sentinel(99) == 32000);
  CHECK(t5.sentinel_number(32099) == 0);
  CHECK(t5.sentinel_number(32000) == 99);
  CHECK(t5.sentinel_number(31999) == -1);
  CHECK(t5.sentinel_number(32100) == -1);
  CHECK(t5.piece(kPadId) == "<pad>");
  CHECK(t5.piece(kEosId) == "</s>");
  CHECK(t5.piece(kUnkId) == "<unk>");
  CHECK(t5.name() == "spiece.model");
  CHECK(t5.hash() ==
        hash128(read_file(source_file("recipes/vocabularies/t5/spiece.model"))).text());
  CHECK(t5.hash() != seqio_vocabulary().hash());
  CHECK_THROWS_AS(t5.sentinel(100), BugError);
}

TEST_CASE("texts get the ids and decode to the text that SentencePiece's own package gives",
          "[data][vocabulary]") {
  const auto vectors = encode_vectors();
  REQUIRE(vectors.size() == 60);
  for (const auto& vector : vectors) {
    const auto text = vector["text"].get<std::string>();
    INFO("text: " << text);
    const auto ids = t5_vocabulary().encode(text);
    CHECK(ids == vector["ids"].get<std::vector<int32_t>>());
    CHECK(t5_vocabulary().decode(ids) == vector["decoded"].get<std::string>());
    CHECK(seqio_vocabulary().encode(text) == vector["seqio_test_ids"].get<std::vector<int32_t>>());
  }
}

TEST_CASE("seqio's test vocabulary loads", "[data][vocabulary]") {
  CHECK(seqio_vocabulary().num_pieces() == 26);
  CHECK(seqio_vocabulary().size() == 126);
  CHECK(seqio_vocabulary().padded_size() == 128);
  CHECK(seqio_vocabulary().sentinel(0) == 125);
}

TEST_CASE("sentinels decode as text with the words around them", "[data][vocabulary]") {
  const Vocabulary& t5 = t5_vocabulary();
  std::vector<int32_t> ids = t5.encode("Thank you");
  ids.push_back(t5.sentinel(0));
  for (int32_t id : t5.encode("me to your party")) ids.push_back(id);
  ids.push_back(t5.sentinel(1));
  ids.push_back(t5.encode("a.").back());  // "." without a blank before it
  ids.push_back(kEosId);
  ids.push_back(kPadId);
  CHECK(t5.decode(ids) == "Thank you <extra_id_0> me to your party <extra_id_1>.");
  CHECK(t5.decode(std::vector<int32_t>{t5.sentinel(0), t5.sentinel(99)}) ==
        "<extra_id_0> <extra_id_99>");
  CHECK(t5.decode(std::vector<int32_t>{}).empty());
}

TEST_CASE("a text of megabytes gets the ids of its words", "[data][vocabulary]") {
  const std::string sentence = "The quick brown fox jumps over the lazy dog, naïvely.\n";
  const auto ids = t5_vocabulary().encode(sentence);
  std::string text;
  std::vector<int32_t> expected;
  while (text.size() < 2'500'000) {
    text += sentence;
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  CHECK(t5_vocabulary().encode(text) == expected);
  // Without any blank there is nowhere to cut.
  const std::string one_word(1'100'000, 'a');
  CHECK(t5_vocabulary().encode(one_word).size() == one_word.size() + 1);
}

TEST_CASE("ids outside the vocabulary decode like unk", "[data][vocabulary]") {
  const std::string unk = t5_vocabulary().decode(std::vector<int32_t>{kUnkId});
  CHECK(t5_vocabulary().decode(std::vector<int32_t>{32100}) == unk);
  CHECK(t5_vocabulary().decode(std::vector<int32_t>{-1}) == unk);
}

TEST_CASE("sentinels are recognised in a text when asked for", "[data][vocabulary]") {
  const Vocabulary& t5 = t5_vocabulary();
  const std::string text = "Thank you <extra_id_0> me to the <extra_id_1>.";
  const auto ids = t5.encode_with_sentinels(text);
  std::vector<int32_t> expected = t5.encode("Thank you");
  expected.push_back(32099);
  for (int32_t id : t5.encode("me to the")) expected.push_back(id);
  expected.push_back(32098);
  expected.push_back(5);  // "." without a blank, as after a word
  CHECK(ids == expected);
  CHECK(t5.decode(ids) == text);
  // Without asking, the letters; and what only looks like a sentinel stays letters.
  CHECK(t5.encode(text) != ids);
  for (const char* other :
       {"<extra_id_100>", "<extra_id_>", "<extra_id_1", "<extra_id_-1>", "a < b"})
    CHECK(t5.encode_with_sentinels(other) == t5.encode(other));
  // Unknown characters right after a sentinel are still one unk.
  const auto unknown = t5.encode_with_sentinels("<extra_id_0>日本 x");
  CHECK(unknown.at(0) == 32099);
  CHECK(unknown.at(1) == kUnkId);
}

TEST_CASE("a file that is no vocabulary is refused with the reason", "[data][vocabulary]") {
  TemporaryFolder folder;
  auto load = [&](const std::string& name) {
    return [&folder, name] { Vocabulary::load(folder / name); };
  };
  require_error(ExitCode::input, {"missing.model", "does not exist", "stmoe-data vocabulary"},
                load("missing.model"));
  write_file_atomically(folder / "text.model", "this is not a vocabulary\n");
  require_error(ExitCode::input, {"text.model", "not a SentencePiece model"}, load("text.model"));
  write_file_atomically(folder / "empty.model", "");
  require_error(ExitCode::input, {"empty.model", "not a SentencePiece model"}, load("empty.model"));
  const std::string t5 = read_file(source_file("recipes/vocabularies/t5/spiece.model"));
  write_file_atomically(folder / "cut.model", t5.substr(0, t5.size() / 2));
  require_error(ExitCode::input, {"cut.model", "truncated"}, load("cut.model"));
  std::filesystem::create_directory(folder / "folder.model");
  require_error(ExitCode::input, {"folder.model", "directory"}, load("folder.model"));
}
