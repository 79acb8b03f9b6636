// SPDX-License-Identifier: Apache-2.0
// The recipe's section `train`: how long, from which seed, what is minimised, when it is logged and
// evaluated, and what happens when an update looks wrong; `precision`; `checkpoint`.
#pragma once

#include <cstdint>
#include <string>

#include "lib/config/config.h"

namespace stmoe {

// An update is refused when the loss or a gradient is not finite or, with a threshold, when the
// loss is more than `threshold` above the mean of the last `window` accepted steps.
struct SpikeConfig {
  double threshold = 0.0;
  int64_t window = 100;
  int64_t max_skipped = 5;
  int64_t max_rollbacks = 2;

  void visit(auto& v) {
    v("threshold", threshold,
      "nats above the recent mean loss that make a spike; 0: only what is not finite",
      at_least(0.0));
    v("window", window,
      "accepted steps in that mean; none is refused for its loss before there are as many",
      at_least(1));
    v("max_skipped", max_skipped,
      "refused updates in a row after which the run goes back to its last checkpoint", at_least(0));
    v("max_rollbacks", max_rollbacks, "times it goes back before it ends as diverged", at_least(0));
  }
};

struct TrainConfig {
  int64_t steps = 100000;
  int64_t seed = 1;
  int64_t log_every = 10;
  int64_t evaluate_every = 1000;
  int64_t accumulate = 1;
  double gradient_clip = 0.0;
  double z_loss = 1e-4;
  double label_smoothing = 0.0;
  std::string loss_normalization = "tokens";
  SpikeConfig spike;

  void visit(auto& v) {
    v("steps", steps, "updates of the whole run; schedules that end with the run end here",
      at_least(1));
    v("seed", seed, "of starting weights, data order, dropout and routing noise", at_least(0));
    v("log_every", log_every, "steps between lines of metrics.jsonl", at_least(1));
    v("evaluate_every", evaluate_every,
      "steps between evaluations on data.validation, also before the first step and at the end; 0: "
      "never",
      at_least(0));
    v("accumulate", accumulate, "micro-batches whose gradients make one update", at_least(1));
    v("gradient_clip", gradient_clip, "largest global L2 norm of the gradient; 0: not clipped",
      at_least(0.0));
    v("z_loss", z_loss, "coefficient of log(Z)^2 of the softmax over the vocabulary",
      at_least(0.0));
    v("label_smoothing", label_smoothing, "probability moved from the target to the other tokens",
      at_least(0.0), less_than(1.0));
    v("loss_normalization", loss_normalization,
      "tokens: mean over target tokens (MoE recipes of t5x); sum: no normalisation (T5)",
      one_of({"tokens", "sum"}));
    v("spike", spike, "when an update is refused");
  }
};

struct PrecisionConfig {
  std::string compute = "f32";
  std::string weights = "f32";
  void visit(auto& v) {
    v("compute", compute,
      "of activations and products; weights, router, norms, softmax and loss stay in f32",
      one_of({"f32", "bf16"}));
    v("weights", weights,
      "storage of the weights of products and embeddings, with compute: bf16. split: exactly f32, "
      "its bf16 part read in place (2 bytes a weight less than f32 with a bf16 copy); "
      "bf16_stochastic: 2 bytes a weight, updates rounded at random",
      one_of({"f32", "split", "bf16_stochastic"}));
  }
};

// Continued pretraining starts a run from another one's weights.
struct CheckpointConfig {
  int64_t save_every = 1000;
  int64_t keep_last = 3;
  int64_t keep_every = 0;
  ConfigPath initial;
  std::string initial_state = "weights";
  void visit(auto& v) {
    v("save_every", save_every,
      "steps between checkpoints; the end of the run is always saved; 0: only the end",
      at_least(0));
    v("keep_last", keep_last, "newest checkpoints that are kept; 0: all", at_least(0));
    v("keep_every", keep_every, "checkpoints at multiples of this are kept for good; 0: none",
      at_least(0));
    v("initial", initial,
      "checkpoint or run directory that a new run starts from; a run with checkpoints of its own "
      "goes on from those");
    v("initial_state", initial_state,
      "what is taken from checkpoint.initial: weights, with a new optimizer from step 0; all, the "
      "optimizer and the step too (train.steps counts on); the corpora are read from their start",
      one_of({"weights", "all"}));
  }
};

}  // namespace stmoe
