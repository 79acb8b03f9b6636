// SPDX-License-Identifier: Apache-2.0
// ConfigNode to Config structs.
#pragma once

#include "lib/config/field.h"
#include "lib/config/node.h"

namespace stmoe {

// Sets the fields of `config` that the tree names; everything that is wrong, the structs' own rules
// included, goes to `problems`. `origin` names the whole in messages about keys that are set
// nowhere.
void read_config(ConfigRef config, const ConfigNode& root, const std::string& origin,
                 Problems& problems);

}  // namespace stmoe
