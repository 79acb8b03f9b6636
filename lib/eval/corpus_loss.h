// SPDX-License-Identifier: Apache-2.0
// The span-corruption loss of a model on a packed corpus: no dropout, the evaluation capacity, no
// z-loss, no smoothing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/data/batch_source.h"
#include "lib/model/encoder_decoder.h"

namespace stmoe {

struct CorpusLoss {
  int64_t num_sequences = 0;  // rows, each of one or several packed examples
  int64_t num_targets = 0;
  double cross_entropy = 0;  // summed over targets, nats
  double dropped_fraction =
      0;  // of routed tokens: mean over sparse layers and rows; 0 for a dense model

  double loss() const;
  double perplexity() const;
  // loss, perplexity, dropped_fraction.
  std::vector<std::pair<std::string, double>> metrics() const;
};

// Reads `source` to its end. Throws InputError when it has no targets.
CorpusLoss corpus_loss(const EncoderDecoder& model, ValidationSource& source, DType compute);

}  // namespace stmoe
