// SPDX-License-Identifier: Apache-2.0
#include "lib/base/error.h"

#include <cstring>

namespace stmoe {

void fail_check(const char* file, int line, const char* condition, const std::string& detail) {
  std::string_view path(file);
  for (std::string_view root : {"/lib/", "/apps/", "/data_tools/", "/tests/", "/cuda/"}) {
    if (auto at = path.rfind(root); at != std::string_view::npos) path = path.substr(at + 1);
  }
  throw BugError(format("{}:{}: check failed: {}{}{}", path, line, condition,
                        detail.empty() ? "" : ": ", detail));
}

std::string errno_text(int code) { return std::strerror(code); }

}  // namespace stmoe
