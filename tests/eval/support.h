// SPDX-License-Identifier: Apache-2.0
// A tiny untrained model with the shipped vocabulary, saved as a run would save it.
#pragma once

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/data/vocabulary.h"
#include "lib/model/encoder_decoder.h"
#include "lib/recipe/recipe.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {

inline Path vocabulary_path() {
  return Path(STMOE_SOURCE_DIR) / "recipes/vocabularies/t5/spiece.model";
}

inline Recipe tiny_recipe() {
  Recipe recipe;
  recipe.model.d_model = 16;
  recipe.model.d_ff = 24;
  recipe.model.d_kv = 8;
  recipe.model.num_heads = 2;
  recipe.model.encoder_layers = recipe.model.decoder_layers = 2;
  recipe.moe.num_experts = 4;
  recipe.moe.encoder_sparse_layers = recipe.moe.decoder_sparse_layers = {1};
  recipe.data.input_length = 32;
  recipe.data.target_length = 12;
  recipe.data.batch_size = 3;
  recipe.vocabulary.model = ConfigPath(vocabulary_path());
  return recipe;
}

// Writes RUN/checkpoints/step-00000007 with starting values; returns that directory.
inline Path save_tiny_run(const Path& run, const Recipe& recipe) {
  const Vocabulary vocabulary = Vocabulary::load(vocabulary_path());
  ModelConfig config = recipe.model;
  config.vocabulary_size = vocabulary.padded_size();
  ParameterStore store(RandomKey{1});
  const EncoderDecoder model(config, recipe.moe, store);
  CheckpointContents contents;
  contents.step = 7;
  for (const Parameter& parameter : store.parameters())
    contents.weights.push_back({parameter.name, parameter.value.value()});
  contents.recipe_yaml = print_config(recipe);
  contents.vocabulary_hash = vocabulary.hash();
  contents.state_json = "{}";
  make_directories(run / "checkpoints");
  return save_checkpoint(run / "checkpoints", contents);
}

}  // namespace stmoe::test
