// SPDX-License-Identifier: Apache-2.0
// Runs the built executables, and a folder for their files.
#pragma once

#include <string>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

struct ProcessOutcome {
  int exit_code = -1;  // -1: ended by a signal
  std::string output, errors;
};

// Runs bin/`program` of the build folder; `input` is its standard input.
ProcessOutcome run_process(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& input = "");

// A folder of its own for one test, removed at the end.
class TestFolder {
 public:
  explicit TestFolder(const std::string& name);
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  Path operator/(const Path& name) const { return path_ / name; }
  // Writes a file and returns its path.
  std::string write(const Path& name, const std::string& contents) const;

 private:
  Path path_;
};

}  // namespace stmoe
