// SPDX-License-Identifier: Apache-2.0
#include "lib/eval/loaded_model.h"

#include <fstream>

#include <catch2/catch.hpp>

#include "tests/eval/support.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

template <class E>
std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "no such error";
}

}  // namespace

TEST_CASE("a model is loaded from a checkpoint and from its run directory", "[eval][checkpoint]") {
  const TemporaryFolder folder;
  const Path run = folder.path() / "run";
  const Path checkpoint = test::save_tiny_run(run, test::tiny_recipe());
  for (const Path& named : {checkpoint, run, run / "checkpoints"}) {
    const LoadedModel loaded = load_model(named);
    CHECK(loaded.checkpoint == checkpoint);
    CHECK(loaded.step == 7);
    CHECK(loaded.recipe.moe.num_experts == 4);
    CHECK(loaded.recipe.model.vocabulary_size == 32128);
    CHECK(loaded.vocabulary.size() == 32100);
    ParameterStore store(RandomKey{1});
    const EncoderDecoder again(loaded.recipe.model, loaded.recipe.moe, store);
    REQUIRE(store.parameters().size() == loaded.store->parameters().size());
    for (size_t i = 0; i < store.parameters().size(); ++i)
      test::require_same_bits(loaded.store->parameters()[i].value.value(),
                              store.parameters()[i].value.value());
  }
}

TEST_CASE("what cannot be loaded is named", "[eval][checkpoint]") {
  using Catch::Matchers::Contains;
  const TemporaryFolder folder;
  CHECK_THAT(message_of<InputError>([&] { load_model(folder.path() / "nowhere"); }),
             Contains("nowhere"));
  CHECK_THAT(message_of<InputError>([&] { load_model(folder.path()); }),
             Contains(folder.path().string()));
  Recipe recipe = test::tiny_recipe();
  recipe.vocabulary.model = ConfigPath(folder.path() / "gone.model");
  test::save_tiny_run(folder.path() / "a", recipe);
  CHECK_THAT(message_of<InputError>([&] { load_model(folder.path() / "a"); }),
             Contains("gone.model"));
  recipe.vocabulary.model =
      ConfigPath(Path(STMOE_SOURCE_DIR) / "tests/data/files/seqio_test.model");
  test::save_tiny_run(folder.path() / "b", recipe);
  CHECK_THAT(message_of<InputError>([&] { load_model(folder.path() / "b"); }),
             Contains("made with another vocabulary"));
  recipe.vocabulary.model = ConfigPath();
  test::save_tiny_run(folder.path() / "c", recipe);
  CHECK_THAT(message_of<InputError>([&] { load_model(folder.path() / "c"); }),
             Contains("names no vocabulary"));
}

}  // namespace stmoe
