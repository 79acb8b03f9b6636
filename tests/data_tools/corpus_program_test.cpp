// SPDX-License-Identifier: Apache-2.0
// stmoe-data corpus as a user runs it.
#include <csignal>

#include "lib/data/corpus.h"
#include "tests/cli/process.h"
#include "tests/data/support.h"
#include "tests/data_tools/packed.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

const std::string kVocabulary = source_file("recipes/vocabularies/t5/spiece.model").string();
const std::string kOther = source_file("tests/data/files/seqio_test.model").string();

std::vector<std::string> english_shards() {
  std::vector<std::string> shards;
  for (int i = 0; i < 3; ++i)
    shards.push_back(
        source_file(format("recipes/data/english/english-train.0000{}-of-00003.json.gz", i))
            .string());
  return shards;
}

ProcessOutcome pack(const std::string& output, std::vector<std::string> rest) {
  std::vector<std::string> arguments = {"corpus", "--vocabulary", kVocabulary, "--output", output};
  arguments.insert(arguments.end(), rest.begin(), rest.end());
  return run_process("stmoe-data", arguments);
}

void require_outcome(const ProcessOutcome& outcome, int exit_code,
                     const std::vector<std::string>& parts = {}) {
  INFO("standard error: " << outcome.errors);
  INFO("standard output: " << outcome.output);
  REQUIRE(outcome.exit_code == exit_code);
  for (const std::string& part : parts) {
    INFO("expected in it: " << part);
    CHECK(outcome.errors.find(part) != std::string::npos);
  }
  // One or a few lines, and nothing on standard output.
  if (exit_code != 0) {
    CHECK(outcome.output.empty());
    CHECK(std::count(outcome.errors.begin(), outcome.errors.end(), '\n') <= 4);
  }
}

std::vector<std::vector<int32_t>> documents_of(const Path& path) {
  const Corpus corpus = Corpus::open(path);
  std::vector<std::vector<int32_t>> documents(corpus.num_documents());
  for (uint64_t i = 0; i < corpus.num_documents(); ++i)
    corpus.read(corpus.document(i), documents[i]);
  return documents;
}

// What packing texts, one document each, must give.
std::vector<std::vector<int32_t>> encoded(const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> documents;
  for (const std::string& text : texts) documents.push_back(t5_vocabulary().encode(text));
  return documents;
}

}  // namespace

TEST_CASE("text of every kind is packed in the order of the arguments", "[data_tools][corpus]") {
  TestFolder folder("kinds");
  const std::vector<std::string> inputs = {
      folder.write("b.txt", "First document.\nSecond, with an é.\n"),
      folder.write("a.jsonl.gz", gzip("{\"text\": \"Third\\nof two lines.\"}\n")),
      folder.write("c.txt.zst", zstd("Fourth.\n\nFifth.\n")),
      folder.write("d.json", "{\"url\": \"u\", \"text\": \"Sixth <extra_id_0> </s>\"}")};
  require_outcome(pack(folder / "out.h5", inputs), 0);
  CHECK(documents_of(folder / "out.h5") ==
        encoded({"First document.", "Second, with an é.", "Third\nof two lines.", "Fourth.",
                 "Fifth.", "Sixth <extra_id_0> </s>"}));
  const Corpus corpus = Corpus::open(folder / "out.h5");
  corpus.check_vocabulary(t5_vocabulary());
  CHECK(corpus.text_bytes() == 15 + 19 + 19 + 7 + 6 + 23);
  // No EOS is stored, and no sentinel: the text's are letters.
  for (const auto& document : documents_of(folder / "out.h5"))
    CHECK(std::none_of(document.begin(), document.end(),
                       [](int32_t id) { return id == kEosId || id >= 32000; }));
  CHECK_FALSE(std::filesystem::exists(folder / "out.h5.work"));
}

TEST_CASE("flags choose the documents, the key, and what happens to bad UTF-8",
          "[data_tools][corpus]") {
  TestFolder folder("flags");
  require_outcome(pack(folder / "p.h5",
                       {"--format", "paragraphs", folder.write("p.txt", "one\ntwo\n\nthree\n")}),
                  0);
  CHECK(documents_of(folder / "p.h5") == encoded({"one\ntwo", "three"}));
  require_outcome(pack(folder / "k.h5", {"--key", "body", "--format", "json",
                                         folder.write("k.txt", "{\"body\": \"x y\"}\n")}),
                  0);
  CHECK(documents_of(folder / "k.h5") == encoded({"x y"}));
  const std::string bad = folder.write("bad.txt", "good one\ncaf\xe9\ngood two\n");
  const ProcessOutcome outcome = pack(folder / "u.h5", {"--invalid-utf8", "skip", bad});
  require_outcome(outcome, 0);
  CHECK(outcome.output.find("dropped invalid utf8") != std::string::npos);
  CHECK(documents_of(folder / "u.h5") == encoded({"good one", "good two"}));
}

TEST_CASE("documents with the same text are packed once, over all files", "[data_tools][corpus]") {
  TestFolder folder("duplicates");
  const std::string a = folder.write("a.txt", "one\ntwo\none\n"),
                    b = folder.write("b.txt", "two\nthree\n");
  const ProcessOutcome outcome = pack(folder / "out.h5", {a, b});
  require_outcome(outcome, 0);
  CHECK(documents_of(folder / "out.h5") == encoded({"one", "two", "three"}));
  CHECK(outcome.output.find("dropped duplicate                          2") != std::string::npos);
  require_outcome(pack(folder / "all.h5", {"--keep-duplicates", a, b}), 0);
  CHECK(documents_of(folder / "all.h5") == encoded({"one", "two", "one", "two", "three"}));
}

TEST_CASE("C4's rules and a list of bad words clean the documents", "[data_tools][corpus]") {
  TestFolder folder("clean");
  const std::string kept =
      "This line has five words. It has two sentences.\nAnother line of five words.";
  const std::string input =
      folder.write("a.jsonl",
                   "{\"text\": \"Menu\\nThis line has five words. It has two sentences.\\nAnother "
                   "line of five words.\\nHome\"}\n"
                   "{\"text\": \"Too short.\"}\n"
                   "{\"text\": \"That darn line has seven words. Or two.\\nAnother line of five "
                   "words.\\nAnd one more line of words.\"}\n");
  require_outcome(pack(folder / "out.h5", {"--clean", "c4", "--bad-words",
                                           folder.write("bad.txt", "heck\nDarn\n"), input}),
                  0);
  CHECK(documents_of(folder / "out.h5") == encoded({kept}));
}

TEST_CASE("the corpus does not depend on the number of threads", "[data_tools][corpus]") {
  TestFolder folder("threads");
  std::vector<std::string> inputs = english_shards();
  for (const char* threads : {"1", "2", "5"}) {
    std::vector<std::string> arguments = {"--threads", threads};
    arguments.insert(arguments.end(), inputs.begin(), inputs.end());
    require_outcome(pack(folder / format("{}.h5", threads), arguments), 0);
  }
  const std::string one = read_file(folder / "1.h5");
  CHECK(Corpus::open(folder / "1.h5").num_documents() == 3471);
  CHECK(read_file(folder / "2.h5") == one);
  CHECK(read_file(folder / "5.h5") == one);
}

TEST_CASE("a killed run goes on with the files it had not finished", "[data_tools][corpus]") {
  TestFolder folder("killed");
  const std::vector<std::string> inputs = english_shards();
  require_outcome(pack(folder / "whole.h5", inputs), 0);
  for (int signal : {SIGKILL, SIGTERM}) {
    const Path output = folder / format("{}.h5", signal);
    const Path work = output.string() + ".work";
    std::vector<std::string> arguments = {
        "corpus", "--log-level", "debug", "--vocabulary", kVocabulary, "--output", output.string()};
    arguments.insert(arguments.end(), inputs.begin(), inputs.end());
    RunningProcess first("stmoe-data", arguments);
    REQUIRE(first.wait_for_text("00000-of-00003.json.gz: done"));
    first.send(signal);
    const ProcessOutcome stopped = first.wait();
    INFO(stopped.errors);
    if (signal == SIGKILL)
      REQUIRE(stopped.signal == SIGKILL);
    else
      REQUIRE(stopped.exit_code == 75);
    CHECK_FALSE(std::filesystem::exists(output));
    REQUIRE(std::filesystem::exists(work));
    const ProcessOutcome second = run_process("stmoe-data", arguments);
    require_outcome(second, 0, {"going on", "of 3 files were done before"});
    CHECK(read_file(output) == read_file(folder / "whole.h5"));
    CHECK_FALSE(std::filesystem::exists(work));
  }
}

TEST_CASE("finished parts of other settings or of a changed file are not used",
          "[data_tools][corpus]") {
  TestFolder folder("changed");
  const std::string good = folder.write("good.txt", "one\n"), bad = folder.write("bad.jsonl", "{");
  require_outcome(pack(folder / "out.h5", {good, bad}), 3, {"bad.jsonl:1", "are kept in"});
  folder.write("good.txt", "one and two\n");
  folder.write("bad.jsonl", "{\"text\": \"three\"}\n");
  require_outcome(pack(folder / "out.h5", {good, bad}), 0);
  CHECK(documents_of(folder / "out.h5") == encoded({"one and two", "three"}));
}

TEST_CASE("two runs cannot write one corpus", "[data_tools][corpus]") {
  TestFolder folder("locked");
  std::vector<std::string> arguments = {"corpus",
                                        "--log-level",
                                        "debug",
                                        "--vocabulary",
                                        kVocabulary,
                                        "--output",
                                        (folder / "out.h5").string()};
  for (const std::string& shard : english_shards()) arguments.push_back(shard);
  RunningProcess first("stmoe-data", arguments);
  REQUIRE(first.wait_for_text("00000-of-00003.json.gz: done"));
  first.send(SIGSTOP);
  require_outcome(run_process("stmoe-data", arguments), 2, {"another stmoe-data is writing"});
  first.send(SIGCONT);
  CHECK(first.wait().exit_code == 0);
}

TEST_CASE("inputs that cannot be used end with code 3, the place, and nothing left behind",
          "[data_tools][corpus][bad_input]") {
  TestFolder folder("bad");
  const std::string text = varied_text(100'000), packed = gzip(text);
  auto refused = [&](const std::string& name, const std::string& contents,
                     std::vector<std::string> parts, std::vector<std::string> flags = {}) {
    INFO(name);
    flags.push_back(folder.write(name, contents));
    parts.push_back(name);
    require_outcome(pack(folder / "out.h5", flags), 3, parts);
    CHECK_FALSE(std::filesystem::exists(folder / "out.h5"));
    CHECK_FALSE(std::filesystem::exists(folder / "out.h5.work"));
  };
  refused("cut.gz", packed.substr(0, packed.size() - 100), {"broken gzip", "truncated"});
  refused("text.gz", text, {"not gzip"});
  refused("cut.zst", zstd(text).substr(0, 1000), {"broken zstd", "truncated"});
  refused("latin.txt", "one\ntwo caf\xe9\n", {"latin.txt:2:", "invalid UTF-8", "byte 11"});
  refused("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": }\n", {"bad.jsonl:2:", "invalid JSON"});
  refused("key.jsonl", "{\"body\": \"a\"}\n", {"key.jsonl:1:", "no key 'text'", "'body'", "--key"});
  refused("array.json", "[{\"text\": \"a\"}]\n", {"array.json:1:", "a JSON array"});

  auto empty = [&](const std::string& name, const std::string& contents) {
    const ProcessOutcome outcome = pack(folder / "out.h5", {folder.write(name, contents)});
    INFO(name << ": " << outcome.errors);
    CHECK(outcome.exit_code == 3);
    CHECK(outcome.errors.find("no document with any text") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "out.h5"));
    CHECK_FALSE(std::filesystem::exists(folder / "out.h5.work"));
  };
  empty("empty.txt", "");
  empty("blank.txt", "\n  \n\t\n");
  empty("empty.jsonl", "{\"text\": \"\"}\n");
  empty("empty.gz", gzip(""));

  require_outcome(pack(folder / "out.h5", {(folder / "none.txt").string()}), 3,
                  {"none.txt", "No such file"});
  require_outcome(pack(folder / "out.h5", {(folder / "").string()}), 3, {"is a directory"});
  CHECK_FALSE(std::filesystem::exists(folder / "out.h5.work"));
}

TEST_CASE("a vocabulary that cannot be used ends with code 3", "[data_tools][corpus][bad_input]") {
  TestFolder folder("vocabulary");
  const std::string input = folder.write("a.txt", "one\n");
  auto with = [&](const std::string& vocabulary) {
    return run_process("stmoe-data", {"corpus", "--vocabulary", vocabulary, "--output",
                                      (folder / "out.h5").string(), input});
  };
  require_outcome(with((folder / "none.model").string()), 3, {"none.model", "does not exist"});
  require_outcome(with(folder.write("text.model", "text")), 3,
                  {"text.model", "not a SentencePiece model"});
}

TEST_CASE("wrong usage ends with code 2", "[data_tools][corpus][bad_input]") {
  TestFolder folder("usage");
  const std::string input = folder.write("a.txt", "one\n");
  require_outcome(run_process("stmoe-data", {}), 2, {"ubcommand"});
  require_outcome(run_process("stmoe-data", {"corpus", input}), 2, {"--"});
  require_outcome(pack(folder / "out.h5", {"--bad-words", input, input}), 2,
                  {"--bad-words", "--clean c4"});
  require_outcome(pack(folder / "out.h5", {"--fromat", "lines", input}), 2,
                  {"--fromat", "--format"});
  require_outcome(pack(folder / "out.h5", {"--format", "xml", input}), 2,
                  {"--format", "paragraphs"});
  require_outcome(pack(folder / "out.h5", {}), 2, {"inputs"});

  require_outcome(pack(folder / "out.h5", {input}), 0);
  const std::string before = read_file(folder / "out.h5");
  folder.write("a.txt", "two\n");
  require_outcome(pack(folder / "out.h5", {input}), 2, {"out.h5", "exists", "--overwrite"});
  CHECK(read_file(folder / "out.h5") == before);
  require_outcome(pack(folder / "out.h5", {"--overwrite", input}), 0);
  CHECK(documents_of(folder / "out.h5") == encoded({"two"}));
}

TEST_CASE("no room or no way to write ends with code 6", "[data_tools][corpus][bad_input]") {
  TestFolder folder("room");
  const std::string input = folder.write("a.txt", "one\n");
  require_outcome(pack(folder / "a.txt/out.h5", {input}), 6, {"a.txt"});
  // A file may grow to 300 KB here: less than the tokens of a shard.
  RunningProcess::Options options;
  options.file_size_limit = 300'000;
  RunningProcess full("stmoe-data",
                      {"corpus", "--vocabulary", kVocabulary, "--output",
                       (folder / "out.h5").string(), english_shards()[0]},
                      options);
  require_outcome(full.wait(), 6, {"out.h5", "File too large"});
  CHECK_FALSE(std::filesystem::exists(folder / "out.h5"));
  CHECK_FALSE(std::filesystem::exists(folder / "out.h5.work"));
}

TEST_CASE("help shows every subcommand with an example", "[data_tools]") {
  const ProcessOutcome help = run_process("stmoe-data", {"--help"});
  CHECK(help.exit_code == 0);
  for (const char* name : {"vocabulary", "corpus", "inspect"}) {
    CHECK(help.output.find(name) != std::string::npos);
    const ProcessOutcome one = run_process("stmoe-data", {name, "--help"});
    CHECK(one.exit_code == 0);
    CHECK(one.output.find(format("stmoe-data {}", name)) != std::string::npos);
  }
}
