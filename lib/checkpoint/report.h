// SPDX-License-Identifier: Apache-2.0
// What `stmoe-convert inspect` prints about a checkpoint.
#pragma once

#include <string>

#include "lib/checkpoint/checkpoint.h"

namespace stmoe {

// Number of elements of the weights (optimizer tensors not counted).
int64_t num_parameters(const Checkpoint& checkpoint);
// A few lines and a table of all tensors. `recipe_summary` is shown as it is, indented lines; may
// be empty.
std::string describe_checkpoint(const Checkpoint& checkpoint, const std::string& recipe_summary);
// One JSON object, indented.
std::string checkpoint_json(const Checkpoint& checkpoint);

}  // namespace stmoe
