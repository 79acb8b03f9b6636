// SPDX-License-Identifier: Apache-2.0
// The programs on a GPU, emulated: the CPU's losses, and runs that move between the two.
#include <sstream>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/training.h"

using namespace stmoe;

namespace {

const std::vector<std::string> kSmall = {"data.batch_size=4",      "data.input_length=32",
                                         "data.target_length=8",   "train.steps=6",
                                         "train.evaluate_every=3", "checkpoint.save_every=3",
                                         "checkpoint.keep_last=0", "data.validation_batches=1"};

void pretrain(const Path& output, const std::string& device,
              const std::vector<std::string>& flags = {}) {
  std::vector<std::string> all = {"--device", device};
  all.insert(all.end(), flags.begin(), flags.end());
  require_exit_code(run_process("stmoe-pretrain", smoke_run(output, kSmall, all)), 0);
}

std::vector<double> losses_of(const Path& run) {
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);)
    losses.push_back(nlohmann::json::parse(line)["loss"]);
  return losses;
}

void require_near(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) CHECK(actual[i] == Approx(expected[i]).epsilon(1e-4));
}

}  // namespace

TEST_CASE("a run moves between CPU and GPU, and goes on as if it had stayed", "[cli][cuda]") {
  TestFolder folder("device");
  pretrain(folder / "cpu", "cpu");
  pretrain(folder / "emu", "emu");
  pretrain(folder / "moved", "cpu", {"--steps", "3"});
  pretrain(folder / "moved", "emu");
  const std::vector<double> expected = losses_of(folder / "cpu");
  CHECK(expected.size() == 9);
  require_near(losses_of(folder / "emu"), expected);
  require_near(losses_of(folder / "moved"), expected);
  for (const char* run : {"emu", "moved"}) require_verified(checkpoint_of(folder / run, 6));
}

TEST_CASE("a GPU writes what the CPU does", "[cli][cuda][eval]") {
  TestFolder folder("device-eval");
  pretrain(folder / "run", "cpu");
  const Path input = folder / "input.txt";
  write_file_atomically(input, "The <extra_id_0> is warm.\nA long day\n");
  const auto written_on = [&](const std::string& device) {
    const ProcessOutcome outcome =
        run_process("stmoe-eval", {"generate", "--checkpoint", (folder / "run").string(), "--input",
                                   input.string(), "--device", device, "--max-length", "3"});
    require_exit_code(outcome, 0);
    return outcome.output;
  };
  CHECK(written_on("emu") == written_on("cpu"));
}
