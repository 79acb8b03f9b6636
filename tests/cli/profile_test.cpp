// SPDX-License-Identifier: Apache-2.0
// What --profile prints and writes, and that memory is what --benchmark plans.
#include <cmath>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/training.h"

using namespace stmoe;

namespace {

using Json = nlohmann::json;

int64_t count_events(const Json& trace, const std::string& name) {
  int64_t count = 0;
  for (const Json& event : trace["traceEvents"]) count += event["name"] == name;
  return count;
}

}  // namespace

TEST_CASE("a run with --profile leaves a table and a trace of its steps 3 to 10",
          "[cli][profile]") {
  TestFolder folder("profile");
  const Path run = folder / "run", plain = folder / "plain";
  require_exit_code(run_process("stmoe-pretrain", smoke_run(run, {}, {"--profile"})), 0);
  const std::string table = read_file(run / "profile.txt");
  CHECK_THAT(table, Catch::Contains("profile of 8 steps"));
  for (const char* row : {"waiting for data", "outside ops", "attention", "product peak",
                          "alive at the peak", "rows, sum, columns"})
    CHECK_THAT(table, Catch::Contains(row));
  const Json trace = Json::parse(read_file(run / "trace.json"));
  CHECK(count_events(trace, "step") == 8);
  CHECK(count_events(trace, "waiting for data") == 8);
  CHECK(count_events(trace, "make a batch") > 0);
  // Looking on changes nothing.
  require_exit_code(run_process("stmoe-pretrain", smoke_run(plain)), 0);
  require_same_run(run, plain, 10);
}

TEST_CASE("the flag --profile takes a file after = only, and reports one that cannot be written",
          "[cli][profile]") {
  TestFolder folder("profile_file");
  const std::vector<std::string> rest = {"--benchmark", "1", "--set", "model.vocabulary_size=512"};
  auto benchmark = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    return run_process("stmoe-pretrain", arguments);
  };
  const Path file = folder / "trace.json";
  ProcessOutcome outcome = benchmark({"--profile=" + file.string(), kSmokeRecipe});
  require_exit_code(outcome, 0);
  CHECK(count_events(Json::parse(read_file(file)), "step") == 1);
  CHECK_THAT(outcome.output, Catch::Contains("GFLOP/s"));
  outcome = benchmark({"--profile", kSmokeRecipe, "--json"});
  require_exit_code(outcome, 0);
  const Json result = Json::parse(outcome.output);
  REQUIRE(result["products"].size() > 5);
  CHECK(result["products"][0]["flops"].get<double>() > 0);
  CHECK(result["memory_bandwidth_bytes_per_second"].get<double>() > 0);
  outcome = benchmark({"--profile=" + (folder / "no/such/folder.json").string(), kSmokeRecipe});
  CHECK(outcome.exit_code == 6);
  CHECK_THAT(outcome.errors, Catch::Contains("folder.json"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("the memory that a benchmark takes is the memory that it plans", "[cli][profile]") {
  for (const std::string compute : {"f32", "bf16"}) {
    const ProcessOutcome outcome = run_process(
        "stmoe-pretrain", {kSmokeRecipe, "--benchmark", "2", "--json", "--threads", "2", "--set",
                           "model.vocabulary_size=8192", "--set", "model.d_model=128", "--set",
                           "data.batch_size=32", "--set", "precision.compute=" + compute});
    require_exit_code(outcome, 0);
    const Json result = Json::parse(outcome.output);
    double sum = 0;
    for (const auto& [kind, bytes] : result["planned_memory"].items()) sum += bytes.get<double>();
    const double planned = result["planned_memory_bytes"], peak = result["peak_memory_bytes"];
    CHECK(sum == planned);
    INFO("planned " << planned << ", peak " << peak);
    CHECK(std::abs(peak - planned) < 0.05 * peak);
  }
}
#endif
