// SPDX-License-Identifier: Apache-2.0
// A model in training: weights, optimizer, data position and counts, advanced one update at a time.
// Two trainers of one recipe, one of them saved and restored in between, do the same steps bit for
// bit.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/checkpoint/checkpoint.h"
#include "lib/optim/schedule.h"
#include "lib/train/metrics_log.h"
#include "lib/train/routing_log.h"
#include "lib/train/step_runner.h"
#include "lib/train/training_data.h"
#include "lib/train/update_guard.h"

namespace stmoe {

class Trainer {
 public:
  // Makes weights and optimizer state: starting values, or memory for restore() to fill.
  enum class Weights { initialized, to_be_restored };
  Trainer(const Recipe& recipe, TrainingData data, Weights weights, Device device = Device::cpu);

  // Updates done.
  int64_t step() const { return step_; }

  enum class Outcome { updated, skipped, wants_rollback };
  // Takes the next batch and, unless the guard refuses, updates the weights; either way the step
  // counts. Throws DivergedError.
  Outcome train_step();

  // Means over the steps since the last call, and the counts so far.
  StepMetrics take_metrics();

  // What each corpus of the mixture has given.
  std::vector<CorpusUse> corpora() const { return data_.source.corpora(); }

  // Losses on data.validation; null when there is none.
  std::optional<EvaluationMetrics> evaluate();

  // Called before weights and optimizer state are written.
  void before_updates(std::function<void()> called) { before_update_ = std::move(called); }

  CheckpointContents contents() const;
  // Throws InputError when the checkpoint is of another model, optimizer or vocabulary.
  void restore(const Checkpoint& checkpoint);
  // Begins from the weights of another run, at step 0 with a new optimizer, or with its optimizer
  // at its step. The data starts at its beginning either way, and counts at 0.
  enum class InitialState { weights, all };
  void start_from(const Checkpoint& checkpoint, InitialState state);
  // Weights and optimizer of the checkpoint, but the present step, data position and counts: the
  // batches that led to the trouble are not met again.
  void roll_back(const Checkpoint& checkpoint);

  std::string alive_table() const { return stmoe::alive_table(runner_.arena()); }
  const ParameterList& parameters() const { return runner_.parameters(); }
  MemoryPlan memory_plan() const { return runner_.memory_plan(); }
  int64_t peak_bytes() const { return runner_.peak_bytes(); }

 private:
  // Sums since the last logged line. Part of a checkpoint, so that a resumed run writes the same
  // lines.
  struct Interval {
    int64_t steps = 0, tokens = 0, targets = 0;
    double cross_entropy = 0, total_loss = 0, load_balance_loss = 0, router_z_loss = 0;
    double dropped_fraction = 0, router_entropy = 0, attention_z_loss = 0;
    double learning_rate = 0, gradient_norm = 0;
    double seconds = 0;
  };

  Batch next_batch();
  void add_to_interval(const StepLosses& losses, double gradient_norm, double seconds);
  void read_weights(const Checkpoint& checkpoint);
  std::string state_json() const;

  Recipe recipe_;
  TrainingData data_;
  StepRunner runner_;
  std::unique_ptr<Schedule> schedule_;
  UpdateGuard guard_;
  std::function<void()> before_update_;
  double flops_per_sequence_, peak_flops_;

  int64_t step_ = 0, input_tokens_ = 0, target_tokens_ = 0;
  double seconds_ = 0;
  Interval interval_;
  RoutingLog routing_;
};

}  // namespace stmoe
