// SPDX-License-Identifier: Apache-2.0
// The directory that holds a run's checkpoints: step-00000500 for each complete one, `latest` (the
// name of the newest, for people and scripts), and hidden names for what is being written or
// removed.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/files.h"

namespace stmoe {

// The newest complete checkpoint: the highest step whose files are all there, whatever `latest`
// says. Nothing when there are none. InputError when there are some, but all of them lack files.
std::optional<Path> newest_checkpoint(const Path& checkpoints);

// What a user may name: a checkpoint directory (or its checkpoint.h5), a run directory or its
// checkpoints directory (the newest in it). InputError when there is none.
Path find_checkpoint(const Path& path);

// Keeps the `keep_last` newest complete checkpoints (0: all) and those whose step is a multiple of
// `keep_every` (0: none), and removes the other complete ones. Each first gets a hidden name, so
// that one half removed never looks complete.
void apply_retention(const Path& checkpoints, int64_t keep_last, int64_t keep_every);

}  // namespace stmoe
