// SPDX-License-Identifier: Apache-2.0
// A fresh folder for one test, removed at its end.
#pragma once

#include <cstdlib>

#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace stmoe {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "stmoe-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw StorageError(name + ": cannot be made");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const Path& path() const { return path_; }
  Path operator/(std::string_view name) const { return path_ / name; }

 private:
  Path path_;
};

}  // namespace stmoe
