// SPDX-License-Identifier: Apache-2.0
// Decides whether an update is applied. Refused: a loss or gradient that is not finite, or a loss
// far above the recent mean (SpikeConfig). After too many refusals in a row the run goes back to
// its last checkpoint; after too many of those, or when there is none, it has diverged.
#pragma once

#include <deque>
#include <string>

#include "lib/autograd/parameter.h"
#include "lib/recipe/train_config.h"

namespace stmoe {

class UpdateGuard {
 public:
  enum class Verdict { apply, skip, roll_back };

  explicit UpdateGuard(const SpikeConfig& config) : config_(config) {}

  // `loss`: cross-entropy per target token of this step; `non_finite`: the first tensor that is not
  // finite, or empty. Throws DivergedError naming step and tensor when no roll-back is left.
  Verdict judge(int64_t step, double loss, const std::string& non_finite);

  // After the state of the checkpoint was read again: keeps the counts of this run.
  void rolled_back();

  int64_t skipped() const { return skipped_; }
  int64_t rollbacks() const { return rollbacks_; }
  // Everything above as JSON text, and back: part of a checkpoint.
  std::string state() const;
  void restore(const std::string& json);

 private:
  bool is_spike(double loss) const;

  SpikeConfig config_;
  std::deque<double> recent_;  // losses of accepted steps
  int64_t skipped_ = 0, skipped_in_row_ = 0, rollbacks_ = 0;
};

// The first tensor that is not finite, looked for in this order: a weight, the loss, a gradient;
// empty: all are finite.
std::string first_non_finite(const ParameterList& parameters, double loss, double gradient_norm);

// The first weight that is not finite; empty: all are.
std::string first_non_finite_weight(const ParameterList& parameters);

}  // namespace stmoe
