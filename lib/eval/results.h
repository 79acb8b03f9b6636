// SPDX-License-Identifier: Apache-2.0
// What an evaluation found, for programs (results.json) and for people (a table).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

struct EvaluationResults {
  std::string task, split;
  int64_t examples = 0;
  std::vector<std::pair<std::string, double>> metrics;  // in the order in which they are shown
  Path checkpoint;
  std::string version;
};

// One object; every number with all its digits.
std::string json_text(const EvaluationResults& results);
// Throws StorageError at once when `path` could not be written at the end of a long evaluation.
void check_writable(const Path& path);
std::string table_text(const EvaluationResults& results);

}  // namespace stmoe
