// SPDX-License-Identifier: Apache-2.0
// Rules between sections; those inside a section are in its room.
#include "lib/recipe/recipe.h"

#include "lib/base/error.h"

namespace stmoe {
namespace {

void validate_batch(const Recipe& recipe, Problems& problems) {
  if (recipe.data.batch_size % recipe.train.accumulate != 0)
    problems.add(
        "train.accumulate",
        "is {}, but data.batch_size {} is not a multiple of it: every micro-batch has as many "
        "sequences",
        recipe.train.accumulate, recipe.data.batch_size);
}

void validate_precision(const Recipe& recipe, Problems& problems) {
  if (recipe.precision.weights != "f32" && recipe.precision.compute != "bf16")
    problems.add("precision.weights",
                 "is {}: products would have to read f32; set precision.compute: bf16",
                 recipe.precision.weights);
}

// A schedule knows best which lengths it cannot have; its error may begin with the key.
void validate_schedule(const Recipe& recipe, Problems& problems) {
  try {
    make_schedule(recipe.schedule, recipe.train.steps);
  } catch (const UsageError& error) {
    const std::string text = error.what();
    const size_t colon = text.find(": ");
    if (text.starts_with("schedule.") && colon != std::string::npos)
      problems.add(text.substr(0, colon), text.substr(colon + 2));
    else
      problems.add("schedule", text);
  }
}

}  // namespace

void Recipe::validate(Problems& problems) const {
  validate_sparse_layers(model, moe, problems);
  validate_batch(*this, problems);
  validate_schedule(*this, problems);
  validate_precision(*this, problems);
}

Recipe load_recipe(const Path& file, const std::vector<std::string>& overrides) {
  return load_config<Recipe>(file, overrides);
}

}  // namespace stmoe
