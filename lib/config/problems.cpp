// SPDX-License-Identifier: Apache-2.0
#include "lib/config/problems.h"

#include "lib/base/error.h"

namespace stmoe {

std::string join_keys(std::string_view section, std::string_view key) {
  if (section.empty()) return std::string(key);
  if (key.empty()) return std::string(section);
  return format("{}{}{}", section, key.starts_with('[') ? "" : ".", key);
}

void Problems::add(std::string_view key, const std::string& text) {
  const std::string path = join_keys(section_, key);
  std::string line = locator_ ? locator_(path) : std::string();
  const bool names_path = line == "--set " + path;
  if (!names_path && !path.empty()) line += (line.empty() ? "" : ": ") + path;
  lines_.push_back(line + (line.empty() ? "" : ": ") + text);
}

void Problems::throw_if_any() const {
  if (!lines_.empty()) throw UsageError(format("{}", fmt::join(lines_, "\n")));
}

}  // namespace stmoe
