// SPDX-License-Identifier: Apache-2.0
// stmoe-data vocabulary as a user runs it.
#include "lib/data/vocabulary.h"
#include "tests/cli/process.h"
#include "tests/data/support.h"
#include "tests/data_tools/packed.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

const std::string kText =
    source_file("recipes/data/english/english-validation.00000-of-00001.json.gz").string();

ProcessOutcome train(const Path& output, std::vector<std::string> rest) {
  std::vector<std::string> arguments = {"vocabulary", "--output", output.string()};
  arguments.insert(arguments.end(), rest.begin(), rest.end());
  return run_process("stmoe-data", arguments);
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

TEST_CASE("a trained vocabulary has T5's conventions and the asked size",
          "[data_tools][vocabulary]") {
  TestFolder folder("train");
  const Path model = folder / "a.model";
  const ProcessOutcome outcome = train(model, {"--size", "1000", "--input", kText});
  INFO(outcome.errors);
  REQUIRE(outcome.exit_code == 0);
  // SentencePiece itself is silent: one line of ours.
  CHECK(std::count(outcome.errors.begin(), outcome.errors.end(), '\n') == 1);
  const Vocabulary vocabulary = Vocabulary::load(model);
  CHECK(vocabulary.num_pieces() == 1000);
  CHECK(vocabulary.size() == 1100);
  CHECK(vocabulary.padded_size() == 1152);
  CHECK(vocabulary.piece(0) == "<pad>");
  CHECK(vocabulary.piece(1) == "</s>");
  CHECK(vocabulary.piece(2) == "<unk>");
  CHECK(vocabulary.sentinel(0) == 1099);
  CHECK(outcome.output.find(vocabulary.hash()) != std::string::npos);
  // Text comes back, normalised as T5's is (nmt_nfkc), without a piece for bos.
  CHECK(vocabulary.decode(vocabulary.encode("The  ﬁrst ｔｅｘｔ,\nand more.")) ==
        "The first text, and more.");
  CHECK(vocabulary.encode("<s>").size() > 1);

  REQUIRE(
      train(folder / "b.model", {"--size", "1000", "--threads", "1", "--input", kText}).exit_code ==
      0);
  CHECK(read_file(folder / "b.model") == read_file(model));
}

TEST_CASE("several files, a sample and the coverage of characters", "[data_tools][vocabulary]") {
  TestFolder folder("files");
  std::string greek;
  for (int i = 0; i < 2000; ++i) greek += format("plain words {} and more of them\n", i);
  greek += "one ω here\n";
  const std::string a = folder.write("a.txt", greek), b = folder.write("b.txt.gz", gzip(greek));
  REQUIRE(
      train(folder / "all.model", {"--size", "60", "--character-coverage", "1", "--input", a, b})
          .exit_code == 0);
  const auto all = Vocabulary::load(folder / "all.model").encode("ω");
  CHECK(std::find(all.begin(), all.end(), kUnkId) == all.end());
  REQUIRE(train(folder / "most.model", {"--size", "60", "--input", a, "--input", b}).exit_code ==
          0);
  const auto most = Vocabulary::load(folder / "most.model").encode("ω");
  CHECK(std::find(most.begin(), most.end(), kUnkId) != most.end());
  const ProcessOutcome sampled =
      train(folder / "sampled.model", {"--size", "60", "--sample-bytes", "5000", "--input", a});
  REQUIRE(sampled.exit_code == 0);
  CHECK(sampled.output.find("of 2001 lines") != std::string::npos);
}

TEST_CASE("what cannot be trained is refused, and nothing is written",
          "[data_tools][vocabulary][bad_input]") {
  TestFolder folder("refused");
  const Path out = folder / "out.model";
  const std::string text = folder.write("a.txt", "a few words only, here and there\n");
  require_refused(train(out, {"--size", "8000", "--input", text}), 2, {"--size 8000", "at most"});
  require_refused(train(out, {"--size", "5", "--input", text}), 2, {"--size 5", "characters"});
  require_refused(train(out, {"--size", "3", "--input", text}), 2, {"--size"});
  require_refused(train(out, {"--character-coverage", "1.5", "--input", text}), 2,
                  {"--character-coverage"});
  require_refused(train(out, {}), 2, {"--input"});
  require_refused(train(out, {"--input", (folder / "none.txt").string()}), 3,
                  {"none.txt", "No such file"});
  require_refused(train(out, {"--input", folder.write("empty.txt", "\n\n")}), 3,
                  {"empty.txt", "no text"});
  require_refused(train(out, {"--input", folder.write("bad.txt", "caf\xe9\n")}), 3,
                  {"bad.txt:1:", "invalid UTF-8"});
  require_refused(
      train(out, {"--input", folder.write("cut.gz", gzip(varied_text(9999)).substr(0, 999))}), 3,
      {"cut.gz", "truncated"});
  CHECK_FALSE(std::filesystem::exists(out));
  folder.write("out.model", "precious");
  require_refused(train(out, {"--input", text}), 2, {"out.model", "exists", "--overwrite"});
  CHECK(read_file(out) == "precious");
  require_refused(train(folder / "a.txt/out.model", {"--size", "20", "--input", text}), 6,
                  {"a.txt"});
}
