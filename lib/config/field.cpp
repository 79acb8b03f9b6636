// SPDX-License-Identifier: Apache-2.0
#include "lib/config/field.h"

namespace stmoe {

ConfigPath::ConfigPath(const Path& text, const Path& directory) {
  if (text.empty()) return;
  path_ = std::filesystem::absolute(directory.empty() ? text : directory / text).lexically_normal();
}

}  // namespace stmoe
