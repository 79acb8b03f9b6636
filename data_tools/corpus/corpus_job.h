// SPDX-License-Identifier: Apache-2.0
// Text files to a packed corpus: a reader, workers that parse, clean and tokenise on all cores, and
// a writer in the order of the inputs; each finished file is a part in the work folder. At the end
// the parts are joined, documents with the same text left out, and the corpus takes its place in
// one step.
#pragma once

#include <optional>
#include <vector>

#include "data_tools/corpus/counts.h"
#include "data_tools/input/document_parser.h"
#include "lib/base/stop_request.h"

namespace stmoe {

struct CorpusJob {
  std::vector<Path> inputs;
  Path output, vocabulary;
  InputSettings input;
  bool uses_c4_rules = false;
  std::optional<Path> bad_words;  // a file, one a line
  bool keeps_duplicates = false;
  bool overwrites = false;
  int num_workers = 1;
};

struct CorpusReport {
  CorpusCounts all, this_run;
  double seconds = 0;  // of reading and tokenising in this run
};

// Throws InputError, UsageError or StorageError; InterruptedError when `stop` is requested: what is
// finished is kept.
CorpusReport run_corpus_job(const CorpusJob& job, const StopRequest& stop);

}  // namespace stmoe
