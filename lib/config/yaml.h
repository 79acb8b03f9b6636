// SPDX-License-Identifier: Apache-2.0
// Text to ConfigNode. yaml.cpp is the only file that includes the YAML library.
#pragma once

#include <string_view>

#include "lib/config/node.h"
#include "lib/config/problems.h"

namespace stmoe {

// Parses one YAML document. `source` names it (its line is that of the first line; --set values
// have none). Keys written twice go to `problems`; text that is not YAML throws UsageError, as
// nothing after it can be read.
ConfigNode parse_yaml(std::string_view text, const ConfigSource& source, Problems& problems);

}  // namespace stmoe
