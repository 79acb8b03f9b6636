// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "lib/base/files.h"
#include "lib/base/random.h"
#include "tests/config/example.h"

using namespace stmoe;

TEST_CASE("a printed config holds every key, defaults included", "[config]") {
  ExampleConfig config;
  config.vocabulary = ConfigPath("/data/v.model");
  config.tags = {"a", "b c", "true", "1.5", ""};
  config.train.resize(2);
  config.train[0].file = ConfigPath("/data/a b.h5");
  CHECK(print_config(config) ==
        "steps: 100\n"
        "rate: 0.1\n"
        "is_packed: true\n"
        "name: run\n"
        "vocabulary: /data/v.model\n"
        "clip: null\n"
        "betas: [0.9, 0.999]\n"
        "tags: [a, \"b c\", \"true\", \"1.5\", \"\"]\n"
        "train:\n"
        "  - file: \"/data/a b.h5\"\n"
        "    weight: 1.0\n"
        "  - file: \"\"\n"
        "    weight: 1.0\n"
        "model:\n"
        "  width: 8\n"
        "  heads: 2\n"
        "  activation: relu\n"
        "  layers: [1, 3]\n"
        "shape:\n"
        "  kind: circle\n"
        "  radius: 1.0\n");
}

TEST_CASE("a printed config parses to the same config", "[config]") {
  ExampleConfig config;
  config.steps = INT64_MIN + 1;
  config.name = "quote \" backslash \\ newline \n tab \t nul-like \x01 umlaut \xc3\xa4 # : {";
  config.clip = 1.0 / 3.0;
  config.train.resize(1);
  config.train[0].file = ConfigPath("/data/with space/\xc3\xa4.h5");
  config.shape.choose("box");
  config.shape.config<BoxConfig>().height = 1 << 20;
  config.steps = 1234567890123;
  const std::string text = print_config(config);
  const auto again = parse_config<ExampleConfig>(text, "/elsewhere/r.yaml");
  CHECK(again.name == config.name);
  CHECK(again.clip == config.clip);
  CHECK(again.train.at(0).file == config.train.at(0).file);
  CHECK(again.shape.config<BoxConfig>().height == 1 << 20);
  CHECK(print_config(again) == text);
}

TEST_CASE("doubles keep every bit through print and parse", "[config]") {
  RandomStream random(RandomKey{7});
  ExampleConfig config;
  config.betas = {0.0, -0.0, 1e-30, 5e-324, -1.7976931348623157e308, 0.1, -1e15, -123456789.0};
  for (int i = 0; i < 2000; ++i) config.betas.push_back(-random.uniform() * 1e-3);
  const auto again = parse_config<ExampleConfig>(print_config(config), "r.yaml");
  REQUIRE(again.betas.size() == config.betas.size());
  for (size_t i = 0; i < config.betas.size(); ++i)
    REQUIRE(std::bit_cast<uint64_t>(again.betas[i]) == std::bit_cast<uint64_t>(config.betas[i]));
}

TEST_CASE("the reference page lists every key with type, default, range and meaning", "[config]") {
  const std::string page = config_reference<ExampleConfig>();
  for (const char* row :
       {"| `steps` | integer | `100` | at least 0 | number of steps |",
        "| `rate` | number | `0.1` | between 0 and 1 | learning rate |",
        "| `clip` | number or null | `null` | more than 0 | clipping threshold |",
        "| `betas` | list of number | `[0.9, 0.999]` | less than 1 | decay rates |", "## train[]\n",
        "| `file` | path | `\"\"` |  | a corpus |", "## model\n",
        "| `activation` | text | `relu` | one of relu, geglu | of the feed-forward layer |",
        "## shape with kind: box\n", "## shape with kind: circle\n",
        "| `radius` | number | `1.0` | more than 0 | radius of the circle |"})
    CHECK_THAT(page, Catch::Contains(row));
}
