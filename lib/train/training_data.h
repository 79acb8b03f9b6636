// SPDX-License-Identifier: Apache-2.0
// The files that a recipe names, opened and checked before anything is written.
#pragma once

#include <optional>

#include "lib/data/batch_source.h"
#include "lib/data/vocabulary.h"
#include "lib/recipe/recipe.h"

namespace stmoe {

struct TrainingData {
  Vocabulary vocabulary;
  BatchSource source;
  std::optional<ValidationSource>
      validation;  // when the recipe evaluates and names a held-out corpus
};

// Throws UsageError for what the recipe lacks, InputError for what cannot be used.
TrainingData open_training_data(const Recipe& recipe);

}  // namespace stmoe
