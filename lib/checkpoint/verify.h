// SPDX-License-Identifier: Apache-2.0
// Reads everything in a checkpoint and checks it against every checksum and hash.
#pragma once

#include <cstdint>

#include "lib/base/files.h"

namespace stmoe {

struct VerifiedCheckpoint {
  int64_t num_tensors = 0;
  int64_t bytes = 0;  // of all files
};

// Throws InputError naming the file and, where it can be found, the tensor and the bytes that are
// damaged.
VerifiedCheckpoint verify_checkpoint(const Path& checkpoint);

}  // namespace stmoe
