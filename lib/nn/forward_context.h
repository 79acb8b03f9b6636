// SPDX-License-Identifier: Apache-2.0
// What a forward pass needs beside its inputs: one value passed down through all layers.
#pragma once

#include <cstdint>

#include "lib/base/random.h"
#include "lib/ops/attention_method.h"
#include "lib/tensor/dtype.h"

namespace stmoe {

struct ForwardContext {
  // Dropout, jitter and the training capacity are on.
  bool is_training = false;
  // Of activations and matrix products: bf16 or f32 (f64 in gradient checks). Weights, norm
  // statistics, softmax, router and loss are in f32 (f64).
  DType compute = DType::f32;
  // Folded with seed, step and micro-batch. Each random site folds in its own path.
  RandomKey key = {};
  // Generation: an expert takes every token that chooses it, so that a text does not depend on its
  // neighbours in the batch. Capacity factors do not apply then (reference/evaluation.md 3).
  bool is_dropless = false;
  // Index in the global batch of the first sequence.
  int64_t first_row = 0;
  // How a GPU computes attention.
  AttentionMethod attention = AttentionMethod::automatic;
};

}  // namespace stmoe
