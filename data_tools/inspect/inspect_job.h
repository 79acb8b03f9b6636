// SPDX-License-Identifier: Apache-2.0
// The text of `stmoe-data inspect`.
#pragma once

#include <optional>
#include <string>

#include "data_tools/inspect/corpus_summary.h"

namespace stmoe {

struct InspectJob {
  Path corpus;
  bool is_json = false;
  int64_t num_documents = 0;       // shown as text, spread over the corpus
  std::optional<Path> vocabulary;  // needed for that
  int64_t input_length = 128;      // of the corrupted example
};

// Throws InputError for a file that cannot be used, UsageError when documents are asked for without
// a vocabulary.
std::string run_inspect_job(const InspectJob& job);

}  // namespace stmoe
