// SPDX-License-Identifier: Apache-2.0
// Trains a SentencePiece unigram model the way T5's was (the trainer settings stored in its
// spiece.model): pad 0, eos 1, unk 2, no bos, nmt_nfkc normalisation, pieces of at most 16
// characters, digits and scripts apart, no byte fallback.
#pragma once

#include <vector>

#include "data_tools/input/document_parser.h"

namespace stmoe {

struct VocabularyJob {
  std::vector<Path> inputs;
  Path output;
  InputSettings input;
  int64_t size = 32000;  // pieces, control ids included; the 100 sentinels come on top
  double character_coverage = 0.9995;
  uint64_t sample_bytes = 200'000'000;
  bool overwrites = false;
};

struct VocabularyReport {
  int64_t num_pieces = 0, size = 0, padded_size = 0;
  std::string hash;
  uint64_t sentences_seen = 0, sentences_used = 0, bytes_seen = 0, bytes_used = 0;
  double seconds = 0;
};

// Writes the model in one step. The same input gives the same bytes. Throws InputError for text
// that cannot be used, UsageError for a size that the text cannot fill.
VocabularyReport run_vocabulary_job(const VocabularyJob& job);

std::string report_table(const VocabularyReport& report);

}  // namespace stmoe
