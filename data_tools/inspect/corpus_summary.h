// SPDX-License-Identifier: Apache-2.0
// What there is to say about a packed corpus, from one pass over it.
#pragma once

#include "lib/data/corpus.h"

namespace stmoe {

struct CorpusSummary {
  uint64_t documents = 0, tokens = 0, text_bytes = 0, distinct_tokens = 0;
  uint64_t shortest = 0, median = 0, longest = 0, percentile_90 = 0;  // tokens of a document
  double mean_length = 0;
  // Entropy of the distribution of single tokens, nats per token: the loss of a model that knows
  // only frequencies.
  double unigram_entropy = 0;
  double unknown_fraction = 0;  // of tokens that are unk
};

// Reads everything; throws InputError where the file is damaged.
CorpusSummary summarize(const Corpus& corpus);

}  // namespace stmoe
