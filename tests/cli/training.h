// SPDX-License-Identifier: Apache-2.0
// What tests of whole training runs share: a small corpus, the smoke recipe on it, and comparisons
// of runs.
#pragma once

#include <string>
#include <vector>

#include "tests/cli/process.h"

namespace stmoe {

// Made once per build folder from the English text that the repository ships, by stmoe-data.
struct SharedData {
  Path vocabulary;  // 1000 pieces
  Path train, validation;
};
const SharedData& shared_data();

inline const std::string kSmokeRecipe =
    std::string(STMOE_SOURCE_DIR) + "/recipes/smoke/switch-tiny.yaml";
inline const std::string kT5Vocabulary =
    std::string(STMOE_SOURCE_DIR) + "/recipes/vocabularies/t5/spiece.model";

// Arguments of stmoe-pretrain: the smoke recipe on the shared data with further `settings`
// ("a.b=value"), on one thread (tests run side by side).
std::vector<std::string> smoke_run(const Path& output,
                                   const std::vector<std::string>& settings = {});
// The same with further flags.
std::vector<std::string> smoke_run(const Path& output, const std::vector<std::string>& settings,
                                   const std::vector<std::string>& flags);

// RUN/metrics.jsonl without what depends on time.
std::string metrics_without_times(const Path& run);
// The bytes of the file that holds the weights and the optimizer state of a step.
std::string weights_of(const Path& run, int64_t step);
Path checkpoint_of(const Path& run, int64_t step);

// Fails unless both runs logged the same and have the same weights and optimizer state at `step`.
void require_same_run(const Path& run, const Path& expected, int64_t step);
// Fails unless stmoe-convert finds the checkpoint whole.
void require_verified(const Path& checkpoint);
// Fails with the program's messages unless it ended with this code.
void require_exit_code(const ProcessOutcome& outcome, int exit_code);

}  // namespace stmoe
