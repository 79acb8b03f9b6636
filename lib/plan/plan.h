// SPDX-License-Identifier: Apache-2.0
// What a run of a recipe will cost, said before it: parameters, FLOPs, memory of the process by
// kind, the least time of a step, and which keys would make it fit the machine. Of one rank.
// Nothing of the model is allocated (planned_step.h).
#pragma once

#include <string>
#include <vector>

#include "lib/model/flops.h"
#include "lib/model/sizes.h"
#include "lib/plan/machine.h"
#include "lib/plan/planned_step.h"

namespace stmoe {

// Changed keys of a recipe and what the process then needs.
struct Suggestion {
  std::vector<std::pair<std::string, std::string>> changes;  // key, value
  std::string effect;                                        // on time or on the result
  int64_t total = 0;
  bool fits = false;
};

struct Plan {
  ModelSizes sizes;
  SequenceLengths lengths;
  int64_t sequences = 0;     // of an update
  double forward_flops = 0;  // of a sequence; the backward pass takes twice as many
  bool is_recomputed = false;
  std::string compute;  // f32 or bf16

  PlannedStep step;
  PlannedStep recomputed;  // the same with model.recompute: block
  Machine machine;
  double step_seconds = 0;      // no step can be faster than this
  const char* limited_by = "";  // "arithmetic" or "memory bandwidth"

  std::vector<Suggestion> suggestions;  // none when it fits

  double backward_flops() const { return 2 * forward_flops; }
  int64_t total() const { return step.total(); }
  bool fits() const { return machine.memory_bytes == 0 || total() <= machine.memory_bytes; }
};

// The recipe needs model.vocabulary_size or vocabulary.model; throws UsageError when it has
// neither. Looks for changes when the plan exceeds the machine's memory.
Plan make_plan(const Recipe& recipe, const Machine& machine);

// Changes that lower a recipe's memory: alone and together, those that leave the result as it is
// first, each no further than it takes to fit. `recipe` has its vocabulary's size.
std::vector<Suggestion> suggest_changes(const Recipe& recipe, const Machine& machine);

// What to say when a run found no memory: the error, what was planned, and changes that lower it.
std::string explain_out_of_memory(const Recipe& recipe, Device device, const std::string& error);

// For people, and (contract.md) for programs.
std::string plan_table(const Plan& plan);
std::string plan_json(const Plan& plan);

}  // namespace stmoe
