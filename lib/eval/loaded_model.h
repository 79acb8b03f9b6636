// SPDX-License-Identifier: Apache-2.0
// A trained model ready for use: what a checkpoint says of itself, with its weights and its
// vocabulary.
#pragma once

#include <memory>

#include "lib/data/vocabulary.h"
#include "lib/model/encoder_decoder.h"
#include "lib/recipe/recipe.h"

namespace stmoe {

struct LoadedModel {
  Path checkpoint;  // the directory that was read
  int64_t step = 0;
  Recipe recipe;
  Vocabulary vocabulary;
  std::unique_ptr<ParameterStore> store;
  std::unique_ptr<EncoderDecoder> model;

  DType compute() const { return parse_dtype(recipe.precision.compute); }
};

// `path` is what find_checkpoint takes: a checkpoint or a run directory. Reads the weights, not the
// optimizer state. Throws InputError when the checkpoint is damaged, or when the vocabulary that
// its recipe names is missing or another.
LoadedModel load_model(const Path& path, Device device = Device::cpu);

}  // namespace stmoe
