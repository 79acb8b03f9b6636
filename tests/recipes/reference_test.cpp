// SPDX-License-Identifier: Apache-2.0
// docs/reference/recipe-keys.md is made from the field lists of the Config structs. To write it
// anew:
//   build/dev/tests/recipes/test_recipes "[.write-reference]"
#include <catch2/catch.hpp>

#include "lib/base/files.h"
#include "lib/recipe/recipe.h"

using namespace stmoe;

namespace {

const Path kPage = Path(STMOE_SOURCE_DIR) / "docs/reference/recipe-keys.md";

std::string page() {
  return "# Recipe keys\n\nEvery key of a recipe, made from the sources; how recipes work is in "
         "[the guide](../guide/recipes.md).\n`stmoe-pretrain RECIPE --print-recipe` prints a "
         "recipe "
         "with all of them.\n" +
         config_reference<Recipe>();
}

}  // namespace

TEST_CASE("the reference page of recipe keys is up to date", "[recipes]") {
  INFO("write it anew: build/dev/tests/recipes/test_recipes \"[.write-reference]\"");
  CHECK(read_file(kPage) == page());
}

TEST_CASE("write the reference page of recipe keys", "[.write-reference]") {
  write_file_atomically(kPage, page());
}
