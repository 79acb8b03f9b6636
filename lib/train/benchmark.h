// SPDX-License-Identifier: Apache-2.0
// Times whole training steps of a recipe on synthetic tokens: no corpus, no vocabulary. Files only
// on request: what other programs need to time the same.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/model/stack.h"
#include "lib/recipe/recipe.h"
#include "lib/train/memory_plan.h"
#include "lib/train/profile_report.h"

namespace stmoe {

struct BenchmarkResult {
  double tokens_per_second = 0;  // input and target tokens
  double seconds_per_step = 0;   // median
  double first_loss = 0;         // cross-entropy per target token of the very first step
  double model_flops_per_second = 0, product_peak_flops_per_second = 0;
  // Of the process, largest resident set; on a GPU what of its memory is taken after the steps.
  int64_t peak_memory_bytes = 0;
  std::vector<LayerRouting> routing;  // of the last step
  MemoryPlan memory;
  std::string alive_at_peak;  // a table
  MachinePeaks peaks;
  Profile profile;  // of the timed steps
};

struct BenchmarkOptions {
  int64_t steps = 1;  // timed ones, after a warm-up of two
  Device device = Device::cpu;
  size_t most_events = 0;           // single events that the profile keeps, for a trace
  std::optional<Path> output = {};  // a folder for benchmark.h5: what the first step starts from
};

// The recipe needs model.vocabulary_size or vocabulary.model.
BenchmarkResult run_benchmark(const Recipe& recipe, const BenchmarkOptions& options);

// For people, and (contract.md) for programs; a profile adds FLOPs, bytes and the products by
// shape.
std::string benchmark_table(const BenchmarkResult& result, bool has_profile = false);
std::string benchmark_json(const BenchmarkResult& result, bool has_profile = false);

}  // namespace stmoe
