// SPDX-License-Identifier: Apache-2.0
// Text and corpora that cannot be used: exit code 3, what is wrong and where, and no output left
// behind.
#include <cstdlib>

#include <catch2/catch.hpp>

#include "lib/base/format.h"
#include "tests/cli/training.h"

using namespace stmoe;

namespace {

const std::string kGood = "{\"text\": \"The cat sat on the mat and looked at the rain.\"}\n";

ProcessOutcome pack(const TestFolder& folder, const std::string& input,
                    const std::vector<std::string>& flags = {}) {
  std::vector<std::string> arguments = {"corpus",
                                        "--vocabulary",
                                        shared_data().vocabulary.string(),
                                        "--output",
                                        (folder / "out/corpus.h5").string(),
                                        input};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  make_directories(folder / "out");
  return run_process("stmoe-data", arguments);
}

// The bytes of `text` compressed by gzip or zstd.
std::string compressed(const TestFolder& folder, const std::string& program,
                       const std::string& text) {
  const std::string plain = folder.write("plain", text), packed = (folder / "packed").string();
  const std::string command = format("{} -c '{}' > '{}'", program, plain, packed);
  REQUIRE(std::system(command.c_str()) == 0);
  return read_file(packed);
}

std::string many_lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += format("{{\"text\": \"Line number {} of a text, {} times {}.\"}}\n", i, i * 31, i);
  return text;
}

std::string with_flipped_byte(std::string bytes, size_t at) {
  bytes.at(at) = static_cast<char>(bytes[at] ^ 0x20);
  return bytes;
}

}  // namespace

TEST_CASE("text that cannot be used ends stmoe-data corpus with exit code 3", "[cli][data]") {
  TestFolder folder("text");
  const std::string gzip = compressed(folder, "gzip", many_lines(500)),
                    zstd = compressed(folder, "zstd -q", many_lines(500));
  struct Case {
    std::string name, contents, message;
  };
  const Case cases[] = {
      {"empty.txt", "", "the input has no document with any text"},
      {"blank.jsonl", "\n\n  \n", "the input has no document with any text"},
      {"no-words.jsonl", "{\"text\": \"\"}\n", "the input has no document with any text"},
      {"latin1.txt", "good line\ncaf\xe9 au lait\n", "UTF-8"},
      {"latin1.jsonl", kGood + "{\"text\": \"caf\xe9\"}\n", "UTF-8"},
      {"broken.jsonl", kGood + "{\"text\": \"no end\n", "JSON"},
      {"no-key.jsonl", kGood + "{\"body\": \"x\"}\n", "text"},
      {"number.jsonl", kGood + "{\"text\": 3}\n", "text"},
      {"plain.json.gz", kGood, "gzip"},
      {"cut.json.gz", gzip.substr(0, gzip.size() / 2), "cut.json.gz"},
      {"flipped.json.gz", with_flipped_byte(gzip, gzip.size() / 2), "flipped.json.gz"},
      {"plain.json.zst", kGood, "zst"},
      {"cut.json.zst", zstd.substr(0, zstd.size() / 2), "cut.json.zst"},
      {"flipped.json.zst", with_flipped_byte(zstd, zstd.size() / 2), "flipped.json.zst"},
  };
  for (const Case& test : cases) {
    INFO(test.name);
    const std::string path = folder.write(test.name, test.contents);
    const ProcessOutcome outcome = pack(folder, path);
    require_exit_code(outcome, 3);
    CHECK_THAT(outcome.errors, Catch::Contains("error: ") && Catch::Contains(test.message));
    const bool is_empty = test.message.find("no document") != std::string::npos;
    CHECK_THAT(outcome.errors, Catch::Contains(is_empty ? "corpus.h5" : test.name));
    CHECK(outcome.output == "");
    CHECK_FALSE(std::filesystem::exists(folder / "out/corpus.h5"));
    stmoe::remove_all(folder / "out");
  }
}

TEST_CASE("what is wrong in a text is found at its line", "[cli][data]") {
  TestFolder folder("line");
  const std::string path = folder.write("a.jsonl", many_lines(41) + "{\"text\": \"caf\xe9\"}\n");
  const ProcessOutcome outcome = pack(folder, path);
  require_exit_code(outcome, 3);
  CHECK_THAT(outcome.errors, Catch::Contains("a.jsonl:42: "));
  // Asked for, the document is left out instead.
  require_exit_code(pack(folder, path, {"--invalid-utf8", "skip"}), 0);
}

TEST_CASE("missing files end stmoe-data with exit code 3, and no place for the output with 6",
          "[cli][data]") {
  TestFolder folder("missing");
  const std::string good = folder.write("good.jsonl", kGood);
  for (const std::string& path : {(folder / "none.txt").string(), (folder / "").string()}) {
    const ProcessOutcome outcome = pack(folder, path);
    require_exit_code(outcome, 3);
    CHECK_THAT(outcome.errors, Catch::Contains("error: " + path));
  }
  const ProcessOutcome vocabulary = run_process(
      "stmoe-data", {"corpus", "--vocabulary", good, "--output", (folder / "c.h5").string(), good});
  require_exit_code(vocabulary, 3);
  CHECK_THAT(vocabulary.errors, Catch::Contains("error: " + good));
  const ProcessOutcome output =
      run_process("stmoe-data", {"corpus", "--vocabulary", shared_data().vocabulary.string(),
                                 "--output", good + "/c.h5", good});
  require_exit_code(output, 6);
  CHECK_THAT(output.errors, Catch::Contains("error: " + good));
}

TEST_CASE("an existing corpus is not overwritten unless asked", "[cli][data]") {
  TestFolder folder("overwrite");
  const std::string good = folder.write("good.jsonl", kGood);
  require_exit_code(pack(folder, good), 0);
  const std::string before = read_file(folder / "out/corpus.h5");
  const ProcessOutcome again = pack(folder, folder.write("other.jsonl", many_lines(3)));
  require_exit_code(again, 2);
  CHECK_THAT(again.errors, Catch::Contains("corpus.h5") && Catch::Contains("--overwrite"));
  CHECK(read_file(folder / "out/corpus.h5") == before);
  require_exit_code(pack(folder, (folder / "other.jsonl").string(), {"--overwrite"}), 0);
  CHECK(read_file(folder / "out/corpus.h5") != before);
}

TEST_CASE("a corpus that cannot be used ends with exit code 3", "[cli][data]") {
  TestFolder folder("corpus");
  const std::string good = read_file(shared_data().train);
  struct Case {
    std::string name, contents, message;
  };
  const Case cases[] = {
      {"text.h5", "this is no corpus", "HDF5"},
      {"empty.h5", "", "HDF5"},
      {"cut.h5", good.substr(0, good.size() / 2), "truncated"},
      {"head.h5", good.substr(0, 100), "truncated"},
      {"flipped.h5", with_flipped_byte(good, good.size() / 2), "checksum"},
      {"model.h5", read_file(shared_data().vocabulary), "HDF5"},
  };
  for (const Case& test : cases) {
    INFO(test.name);
    const std::string path = folder.write(test.name, test.contents);
    const ProcessOutcome trained = run_process(
        "stmoe-pretrain",
        smoke_run(folder / "run", {"data.train=" + path, "train.steps=100000",
                                   "train.log_every=100000", "train.evaluate_every=0"}));
    require_exit_code(trained, 3);
    CHECK_THAT(trained.errors,
               Catch::Contains("error: " + path + ": ") && Catch::Contains(test.message));
    const ProcessOutcome held_out = run_process(
        "stmoe-pretrain",
        smoke_run(folder / "run", {"data.validation=" + path, "data.validation_batches=0"}));
    require_exit_code(held_out, 3);
    CHECK_THAT(held_out.errors, Catch::Contains("error: " + path + ": "));
    if (test.name == "flipped.h5") continue;  // inspect reads no tokens
    const ProcessOutcome inspected = run_process("stmoe-data", {"inspect", path});
    require_exit_code(inspected, 3);
    CHECK_THAT(inspected.errors, Catch::Contains("error: " + path + ": "));
  }
}

TEST_CASE("a corpus made with another vocabulary ends with exit code 3 and names both",
          "[cli][data]") {
  TestFolder folder("vocabulary");
  const ProcessOutcome outcome = run_process(
      "stmoe-pretrain", smoke_run(folder / "run", {"vocabulary.model=" + kT5Vocabulary}));
  require_exit_code(outcome, 3);
  CHECK_THAT(outcome.errors, Catch::Contains("error: " + shared_data().train.string()) &&
                                 Catch::Contains("small.model") && Catch::Contains("spiece.model"));
}
