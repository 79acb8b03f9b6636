// SPDX-License-Identifier: Apache-2.0
// Checkpoints that cannot be used: exit code 3, and what to do. Pretraining, evaluation and
// verification all refuse them; the run directory stays as it was.
#include <catch2/catch.hpp>

#include "lib/base/format.h"
#include "tests/cli/training.h"

using namespace stmoe;

namespace {

constexpr const char* kShard = "shard-00000-of-00001.h5";

// A finished run of ten steps, whose newest checkpoint a test damages.
Path finished_run(const TestFolder& folder) {
  require_exit_code(run_process("stmoe-pretrain", smoke_run(folder / "run")), 0);
  return folder / "run";
}

ProcessOutcome go_on(const Path& run, std::vector<std::string> settings = {}) {
  settings.push_back("train.steps=12");
  return run_process("stmoe-pretrain", smoke_run(run, settings));
}

ProcessOutcome verify(const Path& checkpoint) {
  return run_process("stmoe-convert", {"verify", checkpoint.string()});
}

ProcessOutcome perplexity(const Path& checkpoint) {
  return run_process("stmoe-eval", {"--checkpoint", checkpoint.string(), "--perplexity",
                                    shared_data().validation.string(), "--threads", "1"});
}

void flip(const Path& file, double place) {
  std::string bytes = read_file(file);
  char& byte = bytes[static_cast<size_t>(place * static_cast<double>(bytes.size()))];
  byte = static_cast<char>(byte ^ 0x10);
  write_file_atomically(file, bytes);
}

}  // namespace

TEST_CASE("a checkpoint of another model ends with exit code 3 and names the tensor",
          "[cli][checkpoint]") {
  TestFolder folder("other-model");
  const Path run = finished_run(folder);
  const std::string metrics = read_file(run / "metrics.jsonl"),
                    recipe = read_file(run / "recipe.yaml");
  struct Case {
    std::vector<std::string> settings;
    std::vector<std::string> messages;
  };
  const Case cases[] = {
      {{"model.d_ff=128"}, {"feed_forward/wi/kernel", "[32, 64]", "[32, 128]"}},
      {{"model.activation=geglu"}, {"wi_0/kernel"}},
      {{"moe.num_experts=8"}, {"moe/"}},
      {{"model.encoder_layers=3"}, {"encoder/block_2/"}},
      {{"optimizer.kind=adamw"}, {"/m"}},
      {{"model.vocabulary_size=2048"}, {"shared/embedding", "2048"}},
  };
  for (const Case& test : cases) {
    INFO(test.settings[0]);
    const ProcessOutcome outcome = go_on(run, test.settings);
    require_exit_code(outcome, 3);
    CHECK_THAT(outcome.errors, Catch::Contains("error: ") && Catch::Contains("step-00000010"));
    for (const std::string& message : test.messages)
      CHECK_THAT(outcome.errors, Catch::Contains(message));
    CHECK(read_file(run / "metrics.jsonl") == metrics);
    CHECK(read_file(run / "recipe.yaml") == recipe);
  }
  require_exit_code(go_on(run), 0);
}

TEST_CASE("a checkpoint with a flipped byte ends with exit code 3", "[cli][checkpoint]") {
  TestFolder folder("flipped");
  const Path run = finished_run(folder), newest = checkpoint_of(run, 10);
  for (const char* name : {kShard, "checkpoint.h5"}) {
    const std::string whole = read_file(newest / name);
    for (double place : {0.0, 0.2, 0.5, 0.9}) {
      INFO(name << " at " << place);
      flip(newest / name, place);
      const ProcessOutcome verified = verify(newest);
      require_exit_code(verified, 3);
      CHECK_THAT(verified.errors, Catch::Contains("error: ") && Catch::Contains(name));
      write_file_atomically(newest / name, whole);
    }
  }
  require_verified(newest);
  // In the middle of the tensors: whoever reads them sees it.
  flip(newest / kShard, 0.5);
  const ProcessOutcome trained = go_on(run), evaluated = perplexity(run);
  for (const ProcessOutcome& outcome : {trained, evaluated}) {
    require_exit_code(outcome, 3);
    CHECK_THAT(outcome.errors, Catch::Contains("error: ") && Catch::Contains(kShard));
    CHECK(outcome.output == "");
  }
}

TEST_CASE("a checkpoint without a shard or with one cut short ends with exit code 3",
          "[cli][checkpoint]") {
  TestFolder folder("shard");
  const Path run = finished_run(folder), newest = checkpoint_of(run, 10);
  const std::string whole = read_file(newest / kShard);
  for (const bool is_cut : {true, false}) {
    INFO((is_cut ? "cut" : "missing"));
    if (is_cut)
      write_file_atomically(newest / kShard, whole.substr(0, whole.size() - 7));
    else
      stmoe::remove_all(newest / kShard);
    for (const ProcessOutcome& outcome :
         {verify(newest), perplexity(newest),
          run_process("stmoe-pretrain",
                      smoke_run(folder / "other", {}, {"--resume", newest.string()}))}) {
      require_exit_code(outcome, 3);
      CHECK_THAT(outcome.errors, Catch::Contains("error: ") && Catch::Contains(kShard));
    }
  }
}

TEST_CASE("a directory without a checkpoint ends with exit code 3", "[cli][checkpoint]") {
  TestFolder folder("none");
  make_directories(folder / "empty/checkpoints");
  for (const Path& path : {folder / "empty", folder / "missing", Path("/dev/null")}) {
    INFO(path.string());
    for (const ProcessOutcome& outcome :
         {verify(path), perplexity(path),
          run_process("stmoe-convert", {"inspect", path.string()})}) {
      require_exit_code(outcome, 3);
      CHECK_THAT(outcome.errors, Catch::Contains("error: " + path.string()));
    }
  }
}

TEST_CASE("a run goes on after its vocabulary was replaced only with the right one",
          "[cli][checkpoint]") {
  TestFolder folder("vocabulary");
  const Path run = finished_run(folder);
  const std::string other = (folder / "other.model").string(),
                    corpus = (folder / "other.h5").string(),
                    text = folder.write("text.txt", read_file(kSmokeRecipe));
  require_exit_code(
      run_process("stmoe-data",
                  {"vocabulary", "--size", "1000", "--sample-bytes", "3e5", "--input",
                   std::string(STMOE_SOURCE_DIR) + "/recipes/data/english/"
                                                   "english-validation.00000-of-00001.json.gz",
                   "--output", other}),
      0);
  require_exit_code(
      run_process("stmoe-data", {"corpus", "--vocabulary", other, "--output", corpus, text}), 0);
  const ProcessOutcome outcome = go_on(
      run, {"vocabulary.model=" + other, "data.train=" + corpus, "data.validation=" + corpus});
  require_exit_code(outcome, 3);
  CHECK_THAT(outcome.errors,
             Catch::Contains("made with another vocabulary") && Catch::Contains("other.model"));
  require_exit_code(go_on(run), 0);
}
