// SPDX-License-Identifier: Apache-2.0
// One training step of a recipe on Device::plan: the model, the optimizer and the step that a run
// would make, with tensors that have no memory and kernels that compute nothing. What the step
// arena, the weights and the optimizer would take is then what they take (docs/design/plan.md).
#pragma once

#include "lib/recipe/recipe.h"

namespace stmoe {

// Resident in a process that trains besides what it allocates for training: code, libraries, the
// batch, the tape; and with a corpus also the vocabulary and batches made ahead. Measured
// (docs/benchmarks/plan.md).
inline constexpr int64_t kProgramBytes = int64_t{24} << 20, kCorpusBytes = int64_t{12} << 20;
// Of a GPU's memory: the driver's context, code, the workspace of matrix products. An assumption
// until it is measured.
inline constexpr int64_t kContextBytes = int64_t{640} << 20;

// Bytes, unless it says otherwise.
struct PlannedStep {
  int64_t weights = 0;  // with the bf16 copies that outlive a step
  int64_t optimizer = 0;
  int64_t gradients = 0;   // of all weights: alive together at the end of the backward pass
  int64_t step = 0;        // the arena's block: gradients, activations, working copies
  int64_t step_alive = 0;  // the most that is alive at one moment: what a perfect block would be
  int64_t scratch = 0;     // of all compute threads inside kernels
  // kProgramBytes, and kCorpusBytes where the recipe names a corpus; on a GPU kContextBytes.
  int64_t program = 0;
  double traffic = 0;  // moved by all ops of one update, each of their tensors once

  int64_t activations() const { return step - gradients; }
  // Of the whole process; on a GPU, of its memory.
  int64_t total() const { return weights + optimizer + step + scratch + program; }
};

// model.vocabulary_size must be set; `device` is cpu or cuda, which need not be here. Computes
// nothing, allocates a few MiB at most.
PlannedStep plan_step(const Recipe& recipe, Device device = Device::cpu);

}  // namespace stmoe
