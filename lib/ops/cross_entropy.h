// SPDX-License-Identifier: Apache-2.0
// The language-model loss with z-loss and label smoothing (reference/training.md 5, t5x convention):
//   per token: -sum_v soft_v log p_v - H(soft) + z_loss * log(Z)^2,  soft = 1 - s at the target, s / (V - 1) elsewhere
// Targets equal to 0 (padding) do not count.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct CrossEntropyOptions {
  double z_loss = 0;           // coefficient of log(Z)^2
  double label_smoothing = 0;  // s, 0 <= s < 1
};

struct CrossEntropy {
  Var total;                  // the sum over counted tokens of everything above, one element, f32 (f64)
  double cross_entropy = 0;   // the sum of -log p[target] alone, in nats: what is reported
  int64_t num_targets = 0;    // counted tokens
  int64_t num_correct = 0;    // of them with the target as the most probable token
};

// logits_NV f32 (or f64), targets_N i32 in [0, V).
CrossEntropy cross_entropy(const Var& logits_NV, const Tensor& targets_N,
                           const CrossEntropyOptions& options);

}  // namespace stmoe
