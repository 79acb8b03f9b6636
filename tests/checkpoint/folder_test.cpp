// SPDX-License-Identifier: Apache-2.0
// Which checkpoint is the newest, which are kept, and what a killed process leaves.
#include "lib/checkpoint/folder.h"

#include <csignal>
#include <fstream>
#include <thread>

#include <catch2/catch.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/random.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/verify.h"
#include "tests/checkpoint/example.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;
using Catch::Contains;

namespace {

std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void save_steps(const Path& folder, std::initializer_list<int64_t> steps) {
  for (int64_t step : steps) save_checkpoint(folder, example_contents(step));
}

int64_t step_of(const std::optional<Path>& checkpoint) {
  return checkpoint ? Checkpoint::open(*checkpoint).step() : -1;
}

[[noreturn]] void save_until_killed(const Path& checkpoints,
                                    const std::vector<CheckpointContents>& contents) {
  try {
    for (const CheckpointContents& one : contents) {
      save_checkpoint(checkpoints, one);
      apply_retention(checkpoints, 2, 0);
    }
    for (;;) ::pause();
  } catch (...) {
    ::_exit(9);
  }
}

}  // namespace

TEST_CASE("the newest checkpoint is the complete one of the highest step", "[checkpoint]") {
  TemporaryFolder folder;
  CHECK_FALSE(newest_checkpoint(folder / "none"));
  CHECK_FALSE(newest_checkpoint(folder.path()));
  save_steps(folder.path(), {10, 20, 30});
  CHECK(step_of(newest_checkpoint(folder.path())) == 30);
  SECTION("whatever latest says") {
    write_file_atomically(folder / "latest", "step-00000010\n");
    CHECK(step_of(newest_checkpoint(folder.path())) == 30);
    stmoe::remove_all(folder / "latest");
    CHECK(step_of(newest_checkpoint(folder.path())) == 30);
  }
  SECTION("passing over one that lacks a file") {
    stmoe::remove_all(folder / "step-00000030/shard-00000-of-00001.h5");
    CHECK(step_of(newest_checkpoint(folder.path())) == 20);
    stmoe::remove_all(folder / "step-00000020/checkpoint.h5");
    stmoe::remove_all(folder / "step-00000010/checksums.xxh128");
    CHECK_THAT(text_of<InputError>([&] { newest_checkpoint(folder.path()); }),
               Contains("no complete checkpoint among 3 (") && Contains("step-00000030"));
  }
  SECTION("not other names") {
    make_directories(folder / "step-99");
    make_directories(folder / "step-00000040x");
    make_directories(folder / ".partial-step-00000050");
    CHECK(step_of(newest_checkpoint(folder.path())) == 30);
  }
}

TEST_CASE("a run, its checkpoints or one checkpoint may be named", "[checkpoint]") {
  TemporaryFolder folder;
  save_steps(folder / "run/checkpoints", {1, 2});
  CHECK(find_checkpoint(folder / "run").filename() == "step-00000002");
  CHECK(find_checkpoint(folder / "run/checkpoints").filename() == "step-00000002");
  CHECK(find_checkpoint(folder / "run/checkpoints/step-00000001").filename() == "step-00000001");
  CHECK(find_checkpoint(folder / "run/checkpoints/step-00000001/checkpoint.h5") ==
        folder / "run/checkpoints/step-00000001");
  CHECK_THAT(text_of<InputError>([&] { find_checkpoint(folder / "nothing"); }),
             Contains("nothing: there is no such directory"));
  CHECK_THAT(text_of<InputError>([&] { find_checkpoint(folder.path()); }),
             Contains("holds no checkpoint; expected a run directory"));
}

TEST_CASE("retention keeps the newest and the multiples", "[checkpoint]") {
  TemporaryFolder folder;
  save_steps(folder.path(), {10, 15, 20, 25, 30, 35});
  apply_retention(folder.path(), 0, 0);
  CHECK(names_in(folder.path()).size() == 7);
  apply_retention(folder.path(), 2, 20);
  CHECK(names_in(folder.path()) ==
        std::vector<std::string>{"latest", "step-00000020", "step-00000030", "step-00000035"});
  CHECK(step_of(newest_checkpoint(folder.path())) == 35);
  SECTION("an incomplete one counts for nothing and is left") {
    stmoe::remove_all(folder / "step-00000035/checkpoint.h5");
    apply_retention(folder.path(), 1, 0);
    CHECK(names_in(folder.path()) ==
          std::vector<std::string>{"latest", "step-00000030", "step-00000035"});
  }
}

TEST_CASE("the next save removes what dead processes left", "[checkpoint]") {
  TemporaryFolder folder;
  for (const char* name : {".partial-step-00000007", ".removed-step-00000001"}) {
    make_directories(folder / name);
    write_file_atomically(folder / name / Path("shard-00000-of-00001.h5"), "half");
  }
  write_file_atomically(folder / "latest.partial-4711", "step");
  save_steps(folder.path(), {8});
  CHECK(names_in(folder.path()) == std::vector<std::string>{"latest", "step-00000008"});
}

TEST_CASE("a process killed at any moment of saving loses no complete checkpoint",
          "[checkpoint][slow]") {
  TemporaryFolder folder;
  const Path checkpoints = folder / "checkpoints";
  RandomStream random(RandomKey{20});
  const CheckpointContents first = example_contents(1);
  Stopwatch watch;
  save_checkpoint(checkpoints, first);
  const auto longest = static_cast<uint64_t>(watch.seconds() * 5e6);  // about five saves, in us
  int64_t newest = 1;
  for (int round = 0; round < 20; ++round) {
    // Made before the fork: the compute threads do not live in the child.
    std::vector<CheckpointContents> contents;
    for (int64_t step = newest + 1; step <= newest + 20; ++step)
      contents.push_back(example_contents(step));
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) save_until_killed(checkpoints, contents);
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(longest)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));  // it did not end by itself with an error
    const auto found = newest_checkpoint(checkpoints);
    REQUIRE(found);
    CHECK(verify_checkpoint(*found).num_tensors == 8);
    const int64_t step = step_of(found);
    CHECK(holds_example(*found, step));
    CHECK(step >= newest);
    newest = step;
  }
  CHECK(newest > 1);
}
