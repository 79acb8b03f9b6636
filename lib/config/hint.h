// SPDX-License-Identifier: Apache-2.0
// What to say about a key that does not exist.
#pragma once

#include <string>
#include <vector>

#include "lib/config/field.h"

namespace stmoe {

// "did you mean model.d_model?" for a key of another section of `root`, else the nearest of the
// section's `known` keys, by letters or by words, else the list of them.
std::string unknown_key_hint(const std::string& key, const std::vector<std::string>& known,
                             ConfigRef root);

}  // namespace stmoe
