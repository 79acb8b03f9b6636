// SPDX-License-Identifier: Apache-2.0
// What inspect prints.
#include "lib/checkpoint/report.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/checkpoint/example.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;
using Catch::Contains;

TEST_CASE("the report counts parameters and lists every tensor", "[checkpoint]") {
  TemporaryFolder folder;
  const Checkpoint checkpoint =
      Checkpoint::open(save_checkpoint(folder.path(), example_contents(500)));
  CHECK(num_parameters(checkpoint) == 640 * 512 + 512 + 8 * 3 + 4 * 5 * 6);
  std::string text = describe_checkpoint(checkpoint, "model            d_model 512\n");
  CHECK_THAT(text, Contains("step             500\n") && Contains("parameters       328,336\n") &&
                       Contains("model            d_model 512\n"));
  CHECK_THAT(
      text,
      Contains(
          "weights/encoder/block_1/moe/experts/wi/kernel  [4, 5, 6]   f64                960\n"));
}

TEST_CASE("the JSON report holds the same", "[checkpoint]") {
  TemporaryFolder folder;
  const Checkpoint checkpoint =
      Checkpoint::open(save_checkpoint(folder.path(), example_contents(500)));
  const auto json = nlohmann::json::parse(checkpoint_json(checkpoint));
  CHECK(json["step"] == 500);
  CHECK(json["parameters"] == 328336);
  CHECK(json["recipe"] == example_contents(500).recipe_yaml);
  REQUIRE(json["tensors"].size() == 8);
  CHECK(json["tensors"][7]["name"] == "weights/shared/embedding");
  CHECK(json["tensors"][7]["shape"] == std::vector<int64_t>{640, 512});
  CHECK(json["tensors"][7]["dtype"] == "f32");
  CHECK(json["tensors"][7]["bytes"] == 640 * 512 * 4);
}
