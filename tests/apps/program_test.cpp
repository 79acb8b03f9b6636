// SPDX-License-Identifier: Apache-2.0
// The command line that every executable shares: arguments, --help, --version, exit codes,
// messages, signals. Each case is run in a child process, whose exit code and output are looked at.
#include "apps/common/program.h"

#include <csignal>
#include <cstdio>
#include <functional>
#include <new>
#include <stdexcept>

#include <catch2/catch.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "lib/base/threads.h"

using namespace stmoe;

namespace {

struct Outcome {
  int exit_code = -1;
  std::string output, errors;
};

std::string read_all(int descriptor) {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = ::read(descriptor, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  ::close(descriptor);
  return text;
}

Outcome in_child(const std::function<int()>& body) {
  int output[2], errors[2];
  REQUIRE(::pipe(output) == 0);
  REQUIRE(::pipe(errors) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(output[1], STDOUT_FILENO);
    ::dup2(errors[1], STDERR_FILENO);
    for (int descriptor : {output[0], output[1], errors[0], errors[1]}) ::close(descriptor);
    const int code = body();
    std::fflush(nullptr);
    ::_exit(code);
  }
  ::close(output[1]);
  ::close(errors[1]);
  Outcome outcome;
  outcome.output = read_all(output[0]);
  outcome.errors = read_all(errors[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

// A program with one of each kind of argument; `body` is what it does.
Outcome run_example(std::vector<std::string> arguments,
                    const std::function<void(const ProgramContext&)>& body = {}) {
  return in_child([&] {
    arguments.insert(arguments.begin(), "stmoe-example");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    const ProgramInfo info{"stmoe-example", "Shows arguments.", true};
    return run_program(static_cast<int>(argv.size()), argv.data(), info, [&](Command& command) {
      static std::string recipe, mode = "auto";
      static std::vector<std::string> set;
      static std::optional<int64_t> steps;
      static Path folder;
      static bool is_json = false;
      command.add("recipe", &recipe, "The recipe", {.required = true});
      command.add("--set", &set, "Overrides");
      command.add("--steps", &steps, "Steps", {.at_least = 1});
      command.add("--mode", &mode, "Mode", {.one_of = {"auto", "never"}});
      command.add("--output", &folder, "Folder");
      command.add("--json", &is_json, "JSON");
      command.example("stmoe-example a.yaml --set b=2");
      command.run([&](const ProgramContext& context) {
        if (body) return body(context);
        std::printf("%s mode=%s steps=%lld folder=%s json=%d threads=%d", recipe.c_str(),
                    mode.c_str(), static_cast<long long>(steps.value_or(-1)), folder.c_str(),
                    is_json, num_threads());
        for (const std::string& text : set) std::printf(" [%s]", text.c_str());
      });
    });
  });
}

template <class E>
Outcome run_throwing(const E& error) {
  return run_example({"r"}, [&](const ProgramContext&) { throw error; });
}

}  // namespace

TEST_CASE("arguments reach the program", "[apps]") {
  const Outcome outcome =
      run_example({"--set", "a=1", "r.yaml", "--set", "b=[1, 2]", "--steps", "1e3", "--json",
                   "--output", "x y", "--threads", "3", "--mode=never", "--set=c={d: 1}"});
  CHECK(outcome.errors == "");
  CHECK(outcome.output ==
        "r.yaml mode=never steps=1000 folder=x y json=1 threads=3 [a=1] [b=[1, 2]] [c={d: 1}]");
  CHECK(outcome.exit_code == 0);
}

TEST_CASE("wrong arguments end with exit code 2 and say what was expected", "[apps]") {
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const Case cases[] = {
      {{}, "error: recipe is required\n"},
      {{"r", "s"}, "error: unexpected argument 's'\n       see stmoe-example --help\n"},
      {{"r", "--stepz", "3"}, "error: unknown option '--stepz'; did you mean --steps?\n"},
      {{"r", "--steps"}, "error: --steps: 1 required N missing\n"},
      {{"r", "--steps", "x"}, "error: --steps: is 'x', expected an integer\n"},
      {{"r", "--steps", "0"}, "error: --steps: is 0, expected at least 1\n"},
      {{"r", "--mode", "nevr"},
       "error: --mode: is 'nevr', expected one of auto, never; did you mean never?\n"},
      {{"r", "--threads", "0"}, "error: --threads: is 0, expected at least 1\n"},
      {{"r", "--output", ""}, "error: --output: is empty, expected a path\n"},
      {{"r", "--log-level", "loud"},
       "error: --log-level: is 'loud', expected one of trace, debug, info, warn, error\n"},
      {{"r", "--device", "tpu"},
       "error: --device: is 'tpu', expected one of auto, cpu, cuda; did you mean cpu?\n"},
  };
  for (const Case& test : cases) {
    const Outcome outcome = run_example(test.arguments);
    CHECK_THAT(outcome.errors, Catch::StartsWith(test.message));
    CHECK(outcome.output == "");
    CHECK(outcome.exit_code == 2);
  }
}

TEST_CASE("the flag --help shows every flag and an example on standard output", "[apps]") {
  const Outcome outcome = run_example({"--help"});
  for (const char* part : {"Shows arguments.", "--set", "--steps", "--device", "--threads",
                           "--log-level", "--version", "stmoe-example a.yaml --set b=2"})
    CHECK_THAT(outcome.output, Catch::Contains(part));
  CHECK(outcome.errors == "");
  CHECK(outcome.exit_code == 0);
}

TEST_CASE("the flag --version names everything that the program is built from", "[apps]") {
  const Outcome outcome = run_example({"--version"});
  CHECK_THAT(outcome.output, Catch::StartsWith("stmoe-example "));
  for (const char* part : {"git commit", "build", "devices", "cpu", "MPI", "HDF5"})
    CHECK_THAT(outcome.output, Catch::Contains(part));
  CHECK(outcome.exit_code == 0);
}

TEST_CASE("an error becomes its exit code and one message", "[apps]") {
  CHECK(run_throwing(UsageError("a.yaml:1: wrong")).exit_code == 2);
  CHECK(run_throwing(UsageError("a.yaml:1: wrong")).errors == "error: a.yaml:1: wrong\n");
  CHECK(run_throwing(UsageError("a.yaml:1: wrong\na.yaml:2: too")).errors ==
        "error: a.yaml:1: wrong\n       a.yaml:2: too\n");
  CHECK(run_throwing(InputError("no file")).exit_code == 3);
  CHECK(run_throwing(DivergedError("nan at step 3")).exit_code == 4);
  CHECK(run_throwing(PeerError("lost")).exit_code == 5);
  CHECK(run_throwing(StorageError("full")).exit_code == 6);
  CHECK(run_throwing(InterruptedError("saved at step 7")).exit_code == 75);
  CHECK(run_throwing(InterruptedError("saved at step 7")).errors == "saved at step 7\n");
}

TEST_CASE("a defect asks for a report and shows no stack", "[apps]") {
  const std::string request = "please report it with the command and this message";
  for (const Outcome& outcome :
       {run_throwing(BugError("lib/x.cpp:3: check failed: a == b")),
        run_throwing(std::runtime_error("unexpected")), run_throwing(42)}) {
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.errors, Catch::StartsWith("error: ") && Catch::Contains(request));
  }
  const Outcome memory = run_throwing(std::bad_alloc());
  CHECK(memory.exit_code == 1);
  CHECK_THAT(memory.errors, Catch::StartsWith("error: out of memory; lower data.batch_size"));
}

TEST_CASE("a device that is not there ends with exit code 5 and says why", "[apps]") {
  const Outcome outcome = run_example({"r", "--device", "cuda"});
  CHECK(outcome.exit_code == 5);
  CHECK(outcome.errors ==
        "error: --device cuda: no CUDA device can be used: built without CUDA; use --device cpu or "
        "auto\n");
  CHECK(run_example({"r", "--device", "cpu"}).exit_code == 0);
  CHECK(run_example({"r", "--device", "auto"}).exit_code == 0);
}

TEST_CASE("results that cannot be written are an error", "[apps]") {
  const Outcome outcome = run_example({"r"}, [](const ProgramContext&) {
    REQUIRE(std::freopen("/dev/full", "w", stdout));
    std::printf("results");
  });
  CHECK(outcome.exit_code == 6);
  CHECK(outcome.errors ==
        "error: standard output: cannot be written (No space left on device); check the free "
        "space\n");
}

TEST_CASE("signals ask the program to stop, a second interrupt exits at once", "[apps]") {
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) {
    const Outcome outcome = run_example({"r"}, [=](const ProgramContext& context) {
      const bool before = context.stop.requested();
      ::raise(signal);
      std::printf("%d %d", before, context.stop.requested());
    });
    CHECK(outcome.output == "0 1");
    CHECK(outcome.exit_code == 0);
  }
  const Outcome twice = run_example({"r"}, [](const ProgramContext&) {
    ::raise(SIGINT);
    ::raise(SIGINT);
    std::printf("still here");
  });
  CHECK(twice.output == "");
  CHECK(twice.exit_code == 130);
}

TEST_CASE("a subcommand has its own arguments, help and the shared flags", "[apps]") {
  auto run = [](std::vector<std::string> arguments) {
    return in_child([&] {
      arguments.insert(arguments.begin(), "stmoe-tool");
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      return run_program(static_cast<int>(argv.size()), argv.data(), {"stmoe-tool", "A tool."},
                         [](Command& command) {
                           static std::vector<Path> inputs;
                           Command& pack = command.subcommand("pack", "Packs files");
                           pack.add("inputs", &inputs, "Files", {.required = true});
                           pack.example("stmoe-tool pack a b");
                           pack.run([](const ProgramContext&) {
                             for (const Path& path : inputs) std::printf("<%s>", path.c_str());
                             std::printf(" threads=%d", num_threads());
                           });
                           command.subcommand("show", "Shows").run([](const ProgramContext&) {
                             std::printf("shown");
                           });
                         });
    });
  };
  CHECK(run({"pack", "a", "b c", "--threads", "2"}).errors == "");
  CHECK(run({"pack", "a", "b c", "--threads", "2"}).output == "<a><b c> threads=2");
  CHECK(run({"--threads", "2", "pack", "a"}).output == "<a> threads=2");
  CHECK(run({"show"}).output == "shown");
  CHECK(run({}).exit_code == 2);
  CHECK_THAT(run({}).errors, Catch::StartsWith("error: A subcommand is required"));
  CHECK_THAT(run({"pack", "--help"}).output, Catch::Contains("stmoe-tool pack a b"));
  CHECK_THAT(run({"--help"}).output, Catch::Contains("Packs files"));
}

TEST_CASE("a program may do something without a subcommand and share arguments with it", "[apps]") {
  auto run = [](std::vector<std::string> arguments) {
    return in_child([&] {
      arguments.insert(arguments.begin(), "stmoe-tool");
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      return run_program(static_cast<int>(argv.size()), argv.data(), {"stmoe-tool", "A tool."},
                         [](Command& command) {
                           static std::optional<Path> input;
                           auto print = [](const char* what) {
                             std::printf("%s %s", what, input.value_or("-").c_str());
                           };
                           command.add("--input", &input, "File");
                           command.run([=](const ProgramContext&) { print("measure"); });
                           Command& show = command.subcommand("show", "Shows");
                           show.add("--input", &input, "File", {.required = true});
                           show.run([=](const ProgramContext&) { print("show"); });
                         });
    });
  };
  CHECK(run({}).output == "measure -");
  CHECK(run({"--input", "a"}).output == "measure a");
  CHECK(run({"show", "--input", "a"}).output == "show a");
  CHECK_THAT(run({"show"}).errors, Catch::StartsWith("error: --input is required"));
  CHECK_THAT(run({"sho"}).errors,
             Catch::StartsWith("error: unexpected argument 'sho'; did you mean show?"));
}
