// SPDX-License-Identifier: Apache-2.0
// Reading of configs: right input by type, and wrong input with the exact message a user sees.
#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/base/random.h"
#include "tests/config/example.h"

using namespace stmoe;

namespace {

ExampleConfig parse(const std::string& yaml) { return parse_config<ExampleConfig>(yaml, "r.yaml"); }

std::string message_of(const std::string& yaml) {
  try {
    parse(yaml);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

struct BadInput {
  std::string yaml, message;
};

}  // namespace

TEST_CASE("every type of field is read", "[config]") {
  const ExampleConfig config = parse(R"(
steps: 1e6
rate: 5.0e-2
is_packed: false
name: "a: b"
clip: 1
betas: [0, 0.25]
tags: [x, "y z"]
train: [{file: a.h5, weight: 2}, b.h5]
model:
  width: 16
  layers: []
shape: {kind: box, height: 5}
)");
  CHECK(config.steps == 1000000);
  CHECK(config.rate == 0.05);
  CHECK(config.is_packed == false);
  CHECK(config.name == "a: b");
  CHECK(config.clip == 1.0);
  CHECK(config.betas == std::vector<double>{0, 0.25});
  CHECK(config.tags == std::vector<std::string>{"x", "y z"});
  REQUIRE(config.train.size() == 2);
  CHECK(config.train[0].weight == 2.0);
  CHECK(config.train[1].file.path() == std::filesystem::current_path() / "b.h5");
  CHECK(config.train[1].weight == 1.0);
  CHECK(config.model.width == 16);
  CHECK(config.model.heads == 2);
  CHECK(config.model.layers.empty());
  CHECK(config.shape.kind() == "box");
  CHECK(config.shape.config<BoxConfig>().height == 5);
  CHECK(config.shape.config<BoxConfig>().width == 2);
}

TEST_CASE("keys that are not written keep their defaults", "[config]") {
  const ExampleConfig config = parse("steps: 7\nmodel:\nshape:\ntrain:\nclip: ~\n");
  CHECK(config.steps == 7);
  CHECK(config.model.width == 8);
  CHECK(config.shape.config<CircleConfig>().radius == 1.0);
  CHECK(config.train.empty());
  CHECK_FALSE(config.clip.has_value());
}

TEST_CASE("one value or one section stands for a list of one", "[config]") {
  CHECK(parse("train: a.h5").train.at(0).file.path().filename() == "a.h5");
  CHECK(parse("train: {file: b.h5}").train.at(0).file.path().filename() == "b.h5");
}

TEST_CASE("numbers in any exact notation are integers", "[config]") {
  CHECK(parse("steps: 2.5e3").steps == 2500);
  CHECK(parse("steps: +12").steps == 12);
  CHECK(parse("steps: 9223372036854775807").steps == INT64_MAX);
  CHECK(parse("steps: 3.0").steps == 3);
}

TEST_CASE("a wrong key is reported with its line and the nearest right key", "[config]") {
  const BadInput cases[] = {
      {"stepz: 3", "r.yaml:1: stepz: unknown key; did you mean steps?"},
      {"steps: 1\nmodel:\n  widht: 3\n", "r.yaml:3: model.widht: unknown key; did you mean width?"},
      {"learning_rate: 2", "r.yaml:1: learning_rate: unknown key; did you mean rate?"},
      {"model: {widthness: 2}", "r.yaml:1: model.widthness: unknown key; did you mean width?"},
      {"heads: 2", "r.yaml:1: heads: unknown key; did you mean model.heads?"},
      {"model: {steps: 2}",
       "r.yaml:1: model.steps: unknown key; known keys: width, heads, activation, layers"},
      {"train: [{fiel: a}]", "r.yaml:1: train[0].fiel: unknown key; did you mean file?"},
      {"shape: {kind: circle, radios: 2}",
       "r.yaml:1: shape.radios: unknown key of shape 'circle'; did you mean radius?"},
      {"shape: {height: 2}",
       "r.yaml:1: shape.height: unknown key of shape 'circle'; known keys: kind, radius"},
      {"shape:\n  kind: boxx\n",
       "r.yaml:2: shape.kind: is 'boxx', expected one of box, circle; did you mean box?"},
      {"steps: 1\nrate: 0.5\nsteps: 2\n",
       "r.yaml:3: steps: is set twice, first on line 1; keep one"},
      {"model:\n  width: 2\n  width: 2\n",
       "r.yaml:3: model.width: is set twice, first on line 2; keep one"},
      {"[1, 2]: 3", "r.yaml:1: a key is not plain text"},
  };
  for (const BadInput& bad : cases) CHECK(message_of(bad.yaml) == bad.message);
}

TEST_CASE("a value of the wrong type is quoted with what was expected", "[config]") {
  const BadInput cases[] = {
      {"steps: many", "r.yaml:1: steps: is 'many', expected an integer"},
      {"steps: 1.5", "r.yaml:1: steps: is '1.5', expected an integer"},
      {"steps: 1e300", "r.yaml:1: steps: is '1e300', expected an integer"},
      {"steps: 0x10", "r.yaml:1: steps: is '0x10', expected an integer"},
      {"steps: 10 000", "r.yaml:1: steps: is '10 000', expected an integer"},
      {"steps: 99999999999999999999",
       "r.yaml:1: steps: is '99999999999999999999', expected an integer of 64 bits"},
      {"steps: \"8\"", "r.yaml:1: steps: is the text \"8\", expected an integer"},
      {"steps:", "r.yaml:1: steps: is empty, expected an integer"},
      {"steps: [1]", "r.yaml:1: steps: is a list, expected an integer"},
      {"steps: {a: 1}", "r.yaml:1: steps: is a section, expected an integer"},
      {"rate: fast", "r.yaml:1: rate: is 'fast', expected a number"},
      {"rate: .nan", "r.yaml:1: rate: is '.nan', expected a number"},
      {"rate: nan", "r.yaml:1: rate: is 'nan', expected a number"},
      {"rate: 1e999", "r.yaml:1: rate: is '1e999', expected a number"},
      {"is_packed: yes", "r.yaml:1: is_packed: is 'yes', expected true or false"},
      {"is_packed: 1", "r.yaml:1: is_packed: is '1', expected true or false"},
      {"name:", "r.yaml:1: name: is empty, expected text"},
      {"name: [a]", "r.yaml:1: name: is a list, expected text"},
      {"vocabulary: {a: b}", "r.yaml:1: vocabulary: is a section, expected a path"},
      {"clip: off", "r.yaml:1: clip: is 'off', expected a number"},
      {"betas: 0.9", "r.yaml:1: betas: is '0.9', expected a list like [1, 3]"},
      {"tags: x", "r.yaml:1: tags: is 'x', expected a list like [a, b]"},
      {"betas:\n  - 0.5\n  - x\n", "r.yaml:3: betas[1]: is 'x', expected a number"},
      {"model: 3", "r.yaml:1: model: is '3', expected a section of keys"},
      {"model: [1]", "r.yaml:1: model: is a list, expected a section of keys"},
      {"shape: box", "r.yaml:1: shape: is 'box', expected a section of keys"},
      {"shape: {kind: [box]}", "r.yaml:1: shape.kind: is a list, expected text"},
      {"train: [[a]]", "r.yaml:1: train[0]: is a list, expected a section of keys"},
  };
  for (const BadInput& bad : cases) CHECK(message_of(bad.yaml) == bad.message);
}

TEST_CASE("a value out of range is reported with the range", "[config]") {
  const BadInput cases[] = {
      {"steps: -1", "r.yaml:1: steps: is -1, expected at least 0"},
      {"rate: 1.5", "r.yaml:1: rate: is 1.5, expected between 0 and 1"},
      {"clip: 0", "r.yaml:1: clip: is 0, expected more than 0"},
      {"betas: [0.5, 1.0]", "r.yaml:1: betas[1]: is 1, expected less than 1"},
      {"model: {layers: [1, -2]}", "r.yaml:1: model.layers[1]: is -2, expected at least 0"},
      {"model:\n  activation: gegelu\n",
       "r.yaml:2: model.activation: is 'gegelu', expected one of relu, geglu; did you mean geglu?"},
  };
  for (const BadInput& bad : cases) CHECK(message_of(bad.yaml) == bad.message);
}

TEST_CASE("rules between fields name the line where the key was set", "[config]") {
  CHECK(message_of("model:\n  width: 10\n  heads: 4\n") ==
        "r.yaml:3: model.heads: is 4, but width 10 is not a multiple of it");
  // The key itself has its default: its section is named instead.
  CHECK(message_of("steps: 1\nmodel:\n  width: 7\n") ==
        "r.yaml:2: model.heads: is 2, but width 7 is not a multiple of it");
  CHECK(message_of("shape: {kind: box, width: 4}") ==
        "r.yaml:1: shape.width: is 4, more than height 3");
}

TEST_CASE("all problems are reported together, one line each", "[config]") {
  CHECK(message_of(
            "steps: x\nmodel: {width: 0, hats: 1}\nshape: {kind: box, width: 9}\nextra: 1\n") ==
        "r.yaml:1: steps: is 'x', expected an integer\n"
        "r.yaml:2: model.width: is 0, expected at least 1\n"
        "r.yaml:2: model.hats: unknown key; did you mean heads?\n"
        "r.yaml:3: shape.width: is 9, more than height 3\n"
        "r.yaml:4: extra: unknown key; known keys: steps, rate, is_packed, name, vocabulary, clip, "
        "betas, tags, train, model, shape");
}

TEST_CASE("text that is no recipe is refused with its line", "[config]") {
  const BadInput cases[] = {
      {"", "r.yaml: is empty, expected lines of 'key: value'"},
      {"# only a comment\n", "r.yaml: is empty, expected lines of 'key: value'"},
      {"- 1\n- 2\n", "r.yaml: is a list, expected lines of 'key: value'"},
      {"hello", "r.yaml: is 'hello', expected lines of 'key: value'"},
      {"steps: 1\nmodel: {width: 3\n", "r.yaml:3: invalid YAML: end of map flow not found"},
      {"steps: 1\n\tmodel: 2\n",
       "r.yaml:2: invalid YAML: illegal tab when looking for indentation"},
      {"steps: 1\n---\nsteps: 2\n",
       "r.yaml: is not one YAML document, expected keys and values; remove '---' lines"},
      {",steps: 1\n", "r.yaml: is not one YAML document"},
      {"model: &a\n  layers: [*a]\n", "r.yaml:1: model.layers[0].layers[0]"},
  };
  for (const BadInput& bad : cases)
    CHECK_THAT(message_of(bad.yaml), Catch::StartsWith(bad.message));
}

TEST_CASE("random damage to a recipe ends in a config or in a UsageError, never in anything else",
          "[config]") {
  const std::string text =
      print_config(parse("train: [/data/a.h5, /data/b.h5]\nshape: {kind: box}\nclip: 0.5\n"));
  const std::string bytes = ":-[]{},&*!|>'\"%@`#?\t\n \\~<=\xff\x00" + std::string("0a.e");
  RandomStream random(RandomKey{11});
  int num_refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    for (uint64_t i = 0, count = 1 + random.below(4); i < count; ++i) {
      const size_t at = random.below(damaged.size());
      const char byte = bytes[random.below(bytes.size())];
      if (random.below(2) == 0)
        damaged.insert(at, 1, byte);
      else
        damaged[at] = byte;
    }
    try {
      parse(damaged);
    } catch (const UsageError& error) {
      ++num_refused;
      REQUIRE(std::string(error.what()).starts_with("r.yaml"));
    }
  }
  CHECK(num_refused > 1000);
}

TEST_CASE("a config made in code is checked by the same rules", "[config]") {
  ExampleConfig config;
  CHECK_NOTHROW(validate_config(config));
  config.model.heads = 3;
  CHECK_THROWS_WITH(validate_config(config),
                    "model.heads: is 3, but width 8 is not a multiple of it");
  config.rate = 2;
  config.model.heads = 0;
  CHECK_THROWS_WITH(validate_config(config),
                    "rate: is 2, expected between 0 and 1\nmodel.heads: is 0, expected at least 1");
}
