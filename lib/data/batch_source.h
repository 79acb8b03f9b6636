// SPDX-License-Identifier: Apache-2.0
// Batches for the training loop and for evaluations. Shapes: B batch rows, L input tokens, T target
// tokens.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/data_config.h"
#include "lib/data/mixture.h"
#include "lib/data/vocabulary.h"
#include "lib/tensor/tensor.h"

namespace stmoe {

// Integer tensors on the heap. Padding is 0, also in the segments; real tokens of a row's k-th
// example have segment k >= 1.
struct Batch {
  Tensor encoder_tokens_BL, encoder_segments_BL;              // i32
  Tensor decoder_inputs_BT, targets_BT, decoder_segments_BT;  // i32
  int64_t num_input_tokens = 0, num_target_tokens = 0;        // not padding

  Batch on(Device device) const {
    return {encoder_tokens_BL.on(device),
            encoder_segments_BL.on(device),
            decoder_inputs_BT.on(device),
            targets_BT.on(device),
            decoder_segments_BT.on(device),
            num_input_tokens,
            num_target_tokens};
  }
};

// The endless pretraining stream of a recipe: batches of data.batch_size sequences, made ahead on a
// thread of its own. Which sequence comes when depends on the corpora, the `data` section and the
// seed only.
class BatchSource {
 public:
  // Opens the corpora; throws InputError when one cannot be used with this vocabulary, UsageError
  // when there is none.
  BatchSource(const DataConfig& config, const Vocabulary& vocabulary, uint64_t seed);
  ~BatchSource();
  BatchSource(BatchSource&&) noexcept;
  BatchSource& operator=(BatchSource&&) noexcept;

  // The next batch; throws what making it threw (a damaged corpus: InputError).
  Batch next();

  // The corpora in the recipe's order, with their tokens in all batches that next() returned, of
  // this run and of what restore() goes on from.
  std::vector<CorpusUse> corpora() const;

  // After the last batch that next() returned, as one line of JSON.
  std::string position() const;
  // Goes on from there: what next() returns is what it would have returned then. Throws InputError
  // for a text that is no position or belongs to other corpora.
  void restore(const std::string& position);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The held-out examples of a corpus, the same ones in the same order for every recipe seed: at most
// `num_batches` batches (0: all there is), the last of the corpus perhaps with fewer rows.
class ValidationSource {
 public:
  ValidationSource(const DataConfig& config, const Vocabulary& vocabulary, const Path& corpus,
                   int64_t num_batches);
  ~ValidationSource();
  ValidationSource(ValidationSource&&) noexcept;
  ValidationSource& operator=(ValidationSource&&) noexcept;

  std::optional<Batch> next();
  // Back to the first batch.
  void rewind();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stmoe
