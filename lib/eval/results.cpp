// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/results.h"

#include <algorithm>
#include <cerrno>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {

std::string json_text(const EvaluationResults& results) {
  nlohmann::ordered_json metrics = nlohmann::ordered_json::object();
  for (const auto& [name, value] : results.metrics) metrics[name] = value;
  const nlohmann::ordered_json object = {{"task", results.task},
                                         {"split", results.split},
                                         {"examples", results.examples},
                                         {"metrics", metrics},
                                         {"checkpoint", results.checkpoint.string()},
                                         {"decode", nullptr},
                                         {"version", results.version}};
  return object.dump(2) + "\n";
}

void check_writable(const Path& path) {
  const Path folder = path.has_parent_path() ? path.parent_path() : Path(".");
  if (access(folder.c_str(), W_OK) != 0)
    throw StorageError(format("{}: cannot be written ({}); choose another --output", path.string(),
                              errno_text(errno)));
}

std::string table_text(const EvaluationResults& results) {
  size_t width = 0;
  for (const auto& [name, value] : results.metrics) width = std::max(width, name.size());
  std::string text =
      format("{} on {}, {} examples\n", results.task, results.split, results.examples);
  for (const auto& [name, value] : results.metrics)
    text += format("  {:<{}}  {:.4f}\n", name, width, value);
  return text;
}

}  // namespace stmoe
