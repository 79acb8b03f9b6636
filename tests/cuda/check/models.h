// SPDX-License-Identifier: Apache-2.0
// The small model of the checks, its batches, and one update of it.
#pragma once

#include "lib/optim/schedule.h"
#include "lib/recipe/recipe.h"
#include "lib/train/step_runner.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {

// recipes/smoke/switch-tiny.yaml, with dropout, changed by `changes` ("key=value").
Recipe small_recipe(const Settings& settings, const std::vector<std::string>& changes);
// Random tokens, of rows that end earlier and earlier; the same for the same seed and step.
Batch small_batch(const Recipe& recipe, uint64_t seed, int64_t step);

// A runner with its schedule: the loss per target token of each update.
class SmallRun {
 public:
  SmallRun(const Recipe& recipe, Device device, uint64_t seed);
  double step();
  int64_t steps_done() const { return step_; }
  StepRunner& runner() { return runner_; }
  // Weights and optimizer state.
  std::vector<NamedTensor> weights() const;
  std::vector<NamedTensor> state() const;
  // Goes on from a checkpoint of such a run.
  void save(const Path& folder) const;
  void restore(const Path& folder);

 private:
  Recipe recipe_;
  uint64_t seed_;
  StepRunner runner_;
  std::unique_ptr<Schedule> schedule_;
  int64_t step_ = 0;
};

}  // namespace stmoe::check
