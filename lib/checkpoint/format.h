// SPDX-License-Identifier: Apache-2.0
// Internal to this room: names in the checkpoint format, shared by the writer and the readers.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/files.h"
#include "lib/base/format.h"

namespace stmoe::detail {

inline constexpr const char* kMainFile = "checkpoint.h5";
inline constexpr const char* kChecksumFile = "checksums.xxh128";
inline constexpr const char* kLatestFile = "latest";
// Raised when an older program would misread a checkpoint.
inline constexpr int64_t kFormatVersion = 1;
// Root attribute "format" of checkpoint.h5 and of the shards.
inline constexpr const char* kMainFormat = "stmoe checkpoint";
inline constexpr const char* kShardFormat = "stmoe checkpoint shard";

inline constexpr const char* kPartialPrefix = ".partial-";
inline constexpr const char* kRemovedPrefix = ".removed-";

inline std::string step_name(int64_t step) { return stmoe::format("step-{:08}", step); }
inline std::string shard_name(int64_t index, int64_t count) {
  return stmoe::format("shard-{:05}-of-{:05}.h5", index, count);
}

// Gives a checkpoint in `checkpoints` its hidden name and removes it; a failure is logged, the next
// save tries again.
void remove_checkpoint(const Path& checkpoint);
// Removes what killed processes left: half-written and half-removed checkpoints. Failures are
// logged.
void remove_leftovers(const Path& checkpoints);

}  // namespace stmoe::detail
