// SPDX-License-Identifier: Apache-2.0
// Training that goes wrong: refused updates, the way back to the last good checkpoint, exit code 4.
#include <catch2/catch.hpp>

#include "tests/cli/training.h"

using namespace stmoe;

namespace {

ProcessOutcome pretrain(const std::vector<std::string>& arguments) {
  return run_process("stmoe-pretrain", arguments);
}

const std::vector<std::string> kHopeless = {
    "train.steps=60", "schedule.kind=constant", "schedule.learning_rate=1e30",
    "train.spike.max_skipped=2", "train.spike.max_rollbacks=1"};

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("a run that diverges ends with exit code 4 and keeps its last good checkpoint",
          "[cli][divergence]") {
  TestFolder folder("diverged");
  const Path run = folder / "run";
  require_exit_code(pretrain(smoke_run(run)), 0);
  const std::string weights = weights_of(run, 10);
  // No save comes due between the way back and the next refusal.
  std::vector<std::string> settings = kHopeless;
  settings.push_back("checkpoint.save_every=20");
  const ProcessOutcome outcome = pretrain(smoke_run(run, settings));
  INFO(outcome.errors);
  require_exit_code(outcome, 4);
  CHECK_THAT(outcome.errors, Catch::Contains("error: training diverged at step ") &&
                                 Catch::Contains(" is not finite") &&
                                 Catch::Contains("lower the learning rate"));
  CHECK(count(outcome.errors, "update skipped") == 4);
  CHECK(count(outcome.errors, "going back to the last checkpoint") == 1);
  CHECK(weights_of(run, 10) == weights);
  CHECK(read_file(run / "checkpoints/latest").starts_with("step-00000010"));
  require_verified(run);
  // With a sane learning rate it goes on from there, and leaves what was never disturbed.
  require_exit_code(pretrain(smoke_run(folder / "whole", {"train.steps=15"})), 0);
  require_exit_code(pretrain(smoke_run(run, {"train.steps=15"})), 0);
  require_same_run(run, folder / "whole", 15);
}

TEST_CASE("a run that diverges before its first checkpoint ends with exit code 4",
          "[cli][divergence]") {
  TestFolder folder("early");
  const ProcessOutcome outcome = pretrain(smoke_run(folder / "run", kHopeless));
  require_exit_code(outcome, 4);
  CHECK_THAT(outcome.errors, Catch::Contains("diverged at step 4 before the first checkpoint"));
  CHECK_FALSE(std::filesystem::exists(folder / "run/checkpoints/latest"));
}

TEST_CASE("weights that are not finite are not saved at the end of a run", "[cli][divergence]") {
  TestFolder folder("end");
  const Path run = folder / "run";
  require_exit_code(pretrain(smoke_run(run)), 0);
  std::vector<std::string> settings = kHopeless;
  settings.push_back("schedule.learning_rate=1e39");
  const ProcessOutcome outcome = pretrain(smoke_run(run, settings, {"--steps", "11"}));
  require_exit_code(outcome, 4);
  CHECK_THAT(outcome.errors, Catch::Contains("step 11") && Catch::Contains("was not saved"));
  CHECK(read_file(run / "checkpoints/latest").starts_with("step-00000010"));
}

TEST_CASE("a spike is skipped and counted, and the run goes on", "[cli][divergence]") {
  TestFolder folder("spike");
  // Any loss above the last accepted one is a spike, and nothing is learned: about half of the
  // steps.
  const ProcessOutcome outcome = pretrain(smoke_run(
      folder / "run",
      {"train.steps=20", "train.spike.threshold=1e-6", "train.spike.window=1",
       "train.spike.max_skipped=1000", "schedule.kind=constant", "schedule.learning_rate=1e-9"}));
  require_exit_code(outcome, 0);
  CHECK_THAT(outcome.errors, Catch::Contains("is a spike; update skipped (1 in a row, 1 in all)"));
  CHECK(count(outcome.errors, "update skipped") < 20);
  CHECK(count(outcome.errors, "[train] step 20/20") == 1);
}
