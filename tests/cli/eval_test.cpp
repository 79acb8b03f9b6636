// SPDX-License-Identifier: Apache-2.0
// stmoe-eval as a user runs it: the loss on a corpus, generation, what cannot be used.
#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/training.h"

using namespace stmoe;
using nlohmann::json;

namespace {

Path finished_run(const TestFolder& folder, std::vector<std::string> settings = {}) {
  require_exit_code(run_process("stmoe-pretrain", smoke_run(folder / "run", settings)), 0);
  return folder / "run";
}

ProcessOutcome evaluate(const Path& checkpoint, const Path& corpus,
                        std::vector<std::string> flags = {}) {
  flags.insert(flags.begin(), {"--checkpoint", checkpoint.string(), "--perplexity", corpus.string(),
                               "--threads", "1"});
  return run_process("stmoe-eval", flags);
}

ProcessOutcome generate(const Path& checkpoint, const std::string& input,
                        std::vector<std::string> flags = {}) {
  flags.insert(flags.begin(), {"generate", "--checkpoint", checkpoint.string(), "--threads", "1"});
  return run_process("stmoe-eval", flags, input);
}

// The evaluation at the end of a run.
json last_evaluation(const Path& run) {
  json last;
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (json entry = json::parse(line); entry.contains("split")) last = entry;
  return last;
}

}  // namespace

TEST_CASE("the flag --perplexity gives the loss that the run logged at its end", "[cli][eval]") {
  TestFolder folder("eval-perplexity");
  const Path run = finished_run(folder, {"data.validation_batches=0", "train.evaluate_every=10"});
  const Path results_file = folder / "results.json";
  const ProcessOutcome outcome =
      evaluate(run, shared_data().validation, {"--json", "--output", results_file.string()});
  require_exit_code(outcome, 0);
  const json results = json::parse(outcome.output);
  CHECK(json::parse(read_file(results_file)) == results);
  const double loss = results["metrics"]["loss"];
  CHECK(std::abs(loss - last_evaluation(run)["loss"].get<double>()) < 1e-9);
  CHECK(std::abs(results["metrics"]["perplexity"].get<double>() - std::exp(loss)) <
        1e-9 * std::exp(loss));
  CHECK(results["metrics"]["dropped_fraction"].get<double>() >= 0);
  CHECK(results["metrics"].size() == 3);
  CHECK(results["examples"].get<int64_t>() > 0);
  CHECK(results["split"] == "validation.h5");
  CHECK(results["checkpoint"] == checkpoint_of(run, 10).string());
  CHECK(results["version"].get<std::string>().starts_with("0."));
  // Without --json a table; the checkpoint itself may be named.
  const ProcessOutcome table = evaluate(checkpoint_of(run, 10), shared_data().validation);
  require_exit_code(table, 0);
  CHECK_THAT(table.output, Catch::Contains("\n  loss ") && Catch::Contains("\n  perplexity "));
}

TEST_CASE("generate writes one line for each line, the same every time", "[cli][eval]") {
  TestFolder folder("eval-generate");
  const Path run = finished_run(folder);
  const std::string lines =
      "The old <extra_id_0> walked home.\n\nIt was <extra_id_0> and <extra_id_1>.\n";
  const ProcessOutcome outcome = generate(run, lines, {"--max-length", "5"});
  require_exit_code(outcome, 0);
  CHECK(std::count(outcome.output.begin(), outcome.output.end(), '\n') == 3);
  CHECK(generate(run, lines, {"--max-length", "5"}).output == outcome.output);
  const ProcessOutcome from_file =
      generate(run, "", {"--max-length", "5", "--input", folder.write("lines.txt", lines)});
  CHECK(from_file.output == outcome.output);
  CHECK(generate(run, "").output == "");
}

TEST_CASE("what stmoe-eval cannot use ends with its exit code and says what to do", "[cli][eval]") {
  TestFolder folder("eval-errors");
  const Path run = finished_run(folder);
  const std::string checkpoint = run.string(), corpus = shared_data().validation.string();
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string message, input = "";
  };
  const Case cases[] = {
      {{"--checkpoint", checkpoint}, 2, "nothing to do: give --perplexity"},
      {{"--perplexity", corpus}, 2, "--checkpoint is missing"},
      {{"--checkpoint", checkpoint, "--task", "boolq"}, 2, "unknown option '--task'"},
      {{"generate"}, 2, "--checkpoint is required"},
      {{"generate", "--checkpoint", checkpoint, "--max-length", "0"}, 2, "--max-length"},
      {{"--checkpoint", folder.write("file", "x"), "--perplexity", corpus}, 3, "file"},
      {{"--checkpoint", (folder / "nowhere").string(), "--perplexity", corpus}, 3, "nowhere"},
      {{"--checkpoint", checkpoint, "--perplexity", (folder / "no.h5").string()}, 3, "no.h5"},
      {{"--checkpoint", checkpoint, "--perplexity", folder.write("text.h5", "not HDF5")},
       3,
       "text.h5"},
      {{"--checkpoint", checkpoint, "--perplexity", corpus, "--output", "/proc/no/results.json"},
       6,
       "/proc/no"},
      {{"generate", "--checkpoint", checkpoint, "--input", (folder / "no.txt").string()},
       3,
       "no.txt"},
      {{"generate", "--checkpoint", checkpoint},
       3,
       "standard input:2: byte 2 is not UTF-8",
       "fine\na \xff\n"},
  };
  for (const Case& one : cases) {
    INFO(one.message);
    std::vector<std::string> arguments = one.arguments;
    arguments.insert(arguments.end(), {"--threads", "1"});
    const ProcessOutcome outcome = run_process("stmoe-eval", arguments, one.input);
    CHECK(outcome.exit_code == one.exit_code);
    CHECK_THAT(outcome.errors, Catch::Contains("error: ") && Catch::Contains(one.message));
    CHECK(outcome.output == "");
  }
}
