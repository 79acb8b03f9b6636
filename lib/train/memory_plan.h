// SPDX-License-Identifier: Apache-2.0
// What training needs at most, by kind; printed beside what the process really took.
#pragma once

#include <string>

#include "lib/optim/optimizer.h"
#include "lib/tensor/arena.h"

namespace stmoe {

struct MemoryPlan {
  int64_t program = 0;  // the rest: code, libraries, opened data
  int64_t weights = 0;  // with their bf16 copies
  int64_t optimizer = 0;
  int64_t step = 0;              // the arena: activations, gradients, working copies
  int64_t step_lower_bound = 0;  // the most that is alive at one moment of a step
  int64_t scratch = 0;           // working memory of the threads inside ops

  int64_t total() const { return program + weights + optimizer + step + scratch; }
  std::string text() const;  // "planned 1748 MiB: weights 402, ..."
};

// The rest, measured after the first step, when every library is loaded and no step's tensor is
// left: what is resident besides weights, optimizer state and scratch.
int64_t measure_program_bytes(const ParameterList& parameters, const Optimizer& optimizer);

// After at least one step of the arena.
MemoryPlan plan_memory(int64_t program_bytes, const ParameterList& parameters,
                       const Optimizer& optimizer, const StepArena& arena);

// What is alive at the peak of the last recorded step, by the op that made it.
std::string alive_table(const StepArena& arena);

// Of this process, now and at most so far.
int64_t resident_bytes();
int64_t peak_resident_bytes();

}  // namespace stmoe
