// SPDX-License-Identifier: Apache-2.0
// What every executable has in common: help, version, shared flags.
#include <algorithm>

#include <catch2/catch.hpp>

#include "tests/cli/process.h"

using namespace stmoe;

namespace {

struct Program {
  std::string name;
  std::vector<std::string> commands;
};

const std::vector<Program> kPrograms = {{"stmoe-convert", {"inspect", "verify"}},
                                        {"stmoe-data", {"vocabulary", "corpus", "inspect"}},
                                        {"stmoe-eval", {"generate"}},
                                        {"stmoe-pretrain", {}}};

}  // namespace

TEST_CASE("these tests know every executable", "[cli][programs]") {
  std::vector<std::string> built, known;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(STMOE_BINARY_DIR) + "/bin"))
    built.push_back(entry.path().filename().string());
  for (const Program& program : kPrograms) known.push_back(program.name);
  std::sort(built.begin(), built.end());
  CHECK(built == known);
}

TEST_CASE("the flag --help goes to standard output with an example of every command",
          "[cli][programs]") {
  for (const Program& program : kPrograms) {
    INFO(program.name);
    const ProcessOutcome outcome = run_process(program.name, {"--help"});
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.errors == "");
    for (const char* flag : {"--help", "--version", "--log-level", "--device", "--threads"})
      CHECK_THAT(outcome.output, Catch::Contains(flag));
    if (program.commands.empty())
      CHECK_THAT(outcome.output, Catch::Contains("\nExample:\n  " + program.name + " "));
    for (const std::string& command : program.commands) {
      INFO(command);
      CHECK_THAT(outcome.output, Catch::Contains(program.name + " " + command + " "));
      const ProcessOutcome own = run_process(program.name, {command, "--help"});
      CHECK(own.exit_code == 0);
      CHECK_THAT(own.output, Catch::Contains("Example:\n") &&
                                 Catch::Contains(program.name + " " + command + " "));
    }
  }
}

TEST_CASE("the flag --version tells version, commit, build, devices, CPU level, MPI and HDF5",
          "[cli][programs]") {
  for (const Program& program : kPrograms) {
    INFO(program.name);
    const ProcessOutcome outcome = run_process(program.name, {"--version"});
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.output, Catch::StartsWith(program.name + " 0."));
    for (const char* line : {"\n  git commit ", "\n  build ", "\n  devices    cpu",
                             "\n  CPU level  ", "\n  MPI ", "\n  HDF5       1."})
      CHECK_THAT(outcome.output, Catch::Contains(line));
    CHECK(outcome.errors == "");
  }
}

TEST_CASE("STMOE_CPU lowers the CPU level, and a wrong one ends with exit code 2",
          "[cli][programs][cpu_level]") {
  for (const Program& program : kPrograms) {
    INFO(program.name);
    RunningProcess lowered(program.name, {"--version"}, {.environment = {"STMOE_CPU=portable"}});
    CHECK_THAT(lowered.wait().output, Catch::Contains("\n  CPU level  portable\n"));
    RunningProcess wrong(program.name, {"--help"}, {.environment = {"STMOE_CPU=fast"}});
    const ProcessOutcome outcome = wrong.wait();
    CHECK(outcome.exit_code == 2);
    CHECK_THAT(
        outcome.errors,
        Catch::StartsWith("error: STMOE_CPU: 'fast' is unknown; this processor has: portable"));
  }
}

TEST_CASE("wrong shared flags end with exit code 2 and name the flag", "[cli][programs]") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--log-level", "loud"}, "--log-level"},
      {{"--device", "gpu"}, "--device"},
      {{"--threads", "0"}, "--threads"},
      {{"--threads", "two"}, "--threads"},
      {{"--verbose"}, "unknown option '--verbose'"},
      {{"--thread", "2"}, "did you mean --threads?"}};
  const std::vector<std::vector<std::string>> commands = {
      {"stmoe-pretrain", "r.yaml", "--output", "x"},
      {"stmoe-convert", "verify", "x"},
      {"stmoe-eval", "--checkpoint", "x", "--perplexity", "y.h5"},
      {"stmoe-data", "inspect", "x.h5"}};
  for (const auto& command : commands) {
    for (const auto& [flags, message] : cases) {
      std::vector<std::string> arguments(command.begin() + 1, command.end());
      arguments.insert(arguments.end(), flags.begin(), flags.end());
      INFO(command[0] << " with " << flags[0]);
      const ProcessOutcome outcome = run_process(command[0], arguments);
      CHECK(outcome.exit_code == 2);
      CHECK_THAT(outcome.errors, Catch::StartsWith("error: ") && Catch::Contains(message));
      CHECK(outcome.output == "");
    }
  }
}

TEST_CASE("a command that is missing or unknown ends with exit code 2", "[cli][programs]") {
  for (const Program& program : kPrograms) {
    INFO(program.name);
    const ProcessOutcome none = run_process(program.name, {});
    CHECK(none.exit_code == 2);
    CHECK_THAT(none.errors, Catch::StartsWith("error: "));
    if (program.commands.empty()) continue;
    const ProcessOutcome unknown = run_process(program.name, {"inspekt"});
    CHECK(unknown.exit_code == 2);
    CHECK_THAT(unknown.errors, Catch::Contains("inspekt"));
  }
}
