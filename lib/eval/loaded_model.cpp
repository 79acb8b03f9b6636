// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/loaded_model.h"

#include "lib/base/log.h"
#include "lib/checkpoint/checkpoint.h"

namespace stmoe {
namespace {

Vocabulary load_vocabulary(const Recipe& recipe, const Checkpoint& checkpoint, const Path& path) {
  if (recipe.vocabulary.model.empty())
    throw InputError(
        format("{}: its recipe names no vocabulary (vocabulary.model); it cannot be used on text",
               path.string()));
  Vocabulary vocabulary = Vocabulary::load(recipe.vocabulary.model.path());
  if (vocabulary.hash() != checkpoint.vocabulary_hash())
    throw InputError(
        format("{}: made with another vocabulary (hash {}) than {} is now ({}); put the file of "
               "that run back",
               path.string(), checkpoint.vocabulary_hash(), recipe.vocabulary.model.path().string(),
               vocabulary.hash()));
  return vocabulary;
}

}  // namespace

LoadedModel load_model(const Path& named, Device device) {
  const Path path = find_checkpoint(named);
  const Checkpoint checkpoint = Checkpoint::open(path);
  Recipe recipe = parse_config<Recipe>(checkpoint.recipe_yaml(), path / "recipe");
  Vocabulary vocabulary = load_vocabulary(recipe, checkpoint, path);
  if (recipe.model.vocabulary_size == 0) recipe.model.vocabulary_size = vocabulary.padded_size();
  auto store = std::make_unique<ParameterStore>(RandomKey{}, DType::f32,
                                                ParameterStore::Mode::zeroed, device);
  auto model = std::make_unique<EncoderDecoder>(recipe.model, recipe.moe, *store);
  std::vector<NamedTensor> weights;
  for (const Parameter& parameter : store->parameters()) weights.push_back(named_weight(parameter));
  checkpoint.read_weights(weights);
  for (const Parameter& parameter : store->parameters()) parameter.value.keep_rounded();
  log_info("[eval] {}, step {}", path.string(), checkpoint.step());
  return {path,
          checkpoint.step(),
          std::move(recipe),
          std::move(vocabulary),
          std::move(store),
          std::move(model)};
}

}  // namespace stmoe
