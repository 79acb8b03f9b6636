// SPDX-License-Identifier: Apache-2.0
#include "lib/train/training_data.h"

#include "lib/base/error.h"

namespace stmoe {

TrainingData open_training_data(const Recipe& recipe) {
  if (recipe.vocabulary.model.empty())
    throw UsageError(
        "vocabulary.model: not set; name a SentencePiece model (T5's spiece.model, or one made by "
        "`stmoe-data vocabulary`)");
  const Vocabulary vocabulary = Vocabulary::load(recipe.vocabulary.model.path());
  const DataConfig& data = recipe.data;
  TrainingData opened{vocabulary,
                      BatchSource(data, vocabulary, static_cast<uint64_t>(recipe.train.seed)),
                      std::nullopt};
  if (recipe.train.evaluate_every > 0 && !data.validation.empty())
    opened.validation.emplace(data, vocabulary, data.validation.path(), data.validation_batches);
  return opened;
}

}  // namespace stmoe
