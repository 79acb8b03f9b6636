// SPDX-License-Identifier: Apache-2.0
// The smoke recipe's losses, fixed: a change that moves them changes the maths, the data order or
// the random numbers, and says so. Measured with this program in f32; other processors round
// differently, hence a tolerance.
#include <cmath>
#include <sstream>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/training.h"

using namespace stmoe;

namespace {

std::vector<double> losses_of(const Path& run) {
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::ordered_json::parse(line);
    losses.push_back(entry["loss"]);
  }
  return losses;
}

}  // namespace

TEST_CASE("ten steps of the smoke recipe have the losses that they always had", "[cli][fixed]") {
  TestFolder folder("fixed");
  const std::string corpus = (folder / "corpus.h5").string();
  // T5's published vocabulary, so that nothing depends on how a vocabulary is trained.
  require_exit_code(
      run_process("stmoe-data",
                  {"corpus", "--vocabulary", kT5Vocabulary, "--output", corpus,
                   std::string(STMOE_SOURCE_DIR) + "/recipes/data/english/"
                                                   "english-validation.00000-of-00001.json.gz"}),
      0);
  struct Case {
    std::string recipe;
    std::vector<double> losses;  // step 0 held out, 1 to 5, held out, 6 to 10, held out
  };
  const Case cases[] = {
      {"switch-tiny",
       {10.82188, 10.84807, 10.35539, 9.67720, 9.09430, 8.51047, 7.36853, 7.67403, 6.67887, 6.11676,
        6.55475, 6.60325, 6.12447}},
      {"dense-tiny",
       {10.80795, 10.85176, 10.38648, 9.70790, 9.09082, 8.41917, 7.31891, 7.67801, 6.73957, 6.16066,
        6.54096, 6.60730, 6.16756}},
  };
  for (const Case& test : cases) {
    INFO(test.recipe);
    const Path run = folder / test.recipe;
    require_exit_code(
        run_process(
            "stmoe-pretrain",
            {std::string(STMOE_SOURCE_DIR) + "/recipes/smoke/" + test.recipe + ".yaml", "--output",
             run.string(), "--threads", "1", "--set", "vocabulary.model=" + kT5Vocabulary, "--set",
             "data.train=" + corpus, "--set", "data.validation=" + corpus}),
        0);
    const std::vector<double> losses = losses_of(run);
    std::string list;
    for (double loss : losses) list += std::to_string(loss) + ", ";
    INFO(list);
    REQUIRE(losses.size() == test.losses.size());
    for (size_t i = 0; i < losses.size(); ++i)
      CHECK(std::abs(losses[i] - test.losses[i]) < 1e-3 * test.losses[i]);
  }
}
