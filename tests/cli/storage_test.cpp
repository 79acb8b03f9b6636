// SPDX-License-Identifier: Apache-2.0
// Full disks: exit code 6, a message that names the file, and no complete checkpoint lost.
#include <csignal>

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/format.h"
#include "tests/cli/training.h"

using namespace stmoe;

namespace {

// A file system of a few megabytes; needs the right to mount.
class SmallDisk {
 public:
  explicit SmallDisk(const Path& path, int64_t bytes) : path_(path) {
    make_directories(path);
    is_mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, format("size={}", bytes).c_str()) == 0;
  }
  ~SmallDisk() {
    if (is_mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool is_mounted() const { return is_mounted_; }

  // Leaves this much room.
  void fill(int64_t room) const {
    const auto free = static_cast<int64_t>(free_bytes(path_));
    REQUIRE(free > room);
    write_file_atomically(path_ / "filler", std::string(static_cast<size_t>(free - room), 'x'));
  }
  void clear() const { stmoe::remove_all(path_ / "filler"); }

 private:
  Path path_;
  bool is_mounted_ = false;
};

ProcessOutcome pretrain(const std::vector<std::string>& arguments) {
  return run_process("stmoe-pretrain", arguments);
}

}  // namespace

TEST_CASE("a disk that fills up ends the run with exit code 6 and loses no checkpoint",
          "[cli][storage]") {
  TestFolder folder("full");
  const SmallDisk disk(folder / "disk", 16 << 20);
  if (!disk.is_mounted()) {
    WARN("skipped: mounting a small file system is not permitted");
    return;
  }
  require_exit_code(pretrain(smoke_run(folder / "whole")), 0);
  const Path run = folder / "disk/run";
  require_exit_code(pretrain(smoke_run(run, {}, {"--steps", "5"})), 0);
  // No room for the next checkpoint, for the metrics either, for nothing.
  for (int64_t room : {200 << 10, 64 << 10, 4 << 10, 0}) {
    INFO(room << " bytes free");
    disk.fill(room);
    const ProcessOutcome outcome = pretrain(smoke_run(run));
    require_exit_code(outcome, 6);
    CHECK_THAT(outcome.errors, Catch::Contains("error: " + run.string()) &&
                                   (Catch::Contains("no room for the checkpoint of step 10") ||
                                    Catch::Contains("No space left on device") ||
                                    Catch::Contains("check permissions and free space")));
    disk.clear();
    require_verified(run);
    CHECK(std::filesystem::exists(checkpoint_of(run, 5)));
  }
  require_exit_code(pretrain(smoke_run(run)), 0);
  require_same_run(run, folder / "whole", 10);
}

TEST_CASE("a checkpoint that may not grow ends the run with exit code 6 and loses none",
          "[cli][storage]") {
  TestFolder folder("limit");
  require_exit_code(pretrain(smoke_run(folder / "whole")), 0);
  const Path run = folder / "run";
  require_exit_code(pretrain(smoke_run(run, {}, {"--steps", "5"})), 0);
  RunningProcess::Options options;
  options.file_size_limit = 64 << 10;
  const ProcessOutcome outcome = RunningProcess("stmoe-pretrain", smoke_run(run), options).wait();
  require_exit_code(outcome, 6);
  CHECK_THAT(outcome.errors,
             Catch::Contains("error: " + run.string()) && Catch::Contains("File too large"));
  require_verified(run);
  require_exit_code(pretrain(smoke_run(run)), 0);
  require_same_run(run, folder / "whole", 10);
}

TEST_CASE("a run directory where nothing can be made ends with exit code 6", "[cli][storage]") {
  TestFolder folder("unwritable");
  const std::string file = folder.write("file", "not a directory");
  for (const std::string& path : {std::string("/proc/run"), file, file + "/run"}) {
    const ProcessOutcome outcome = pretrain(smoke_run(path));
    require_exit_code(outcome, 6);
    CHECK_THAT(outcome.errors, Catch::Contains("error: " + path));
  }
}

TEST_CASE("results that standard output does not take end with exit code 6", "[cli][storage]") {
  const Path program = Path(STMOE_BINARY_DIR) / "bin/stmoe-pretrain";
  const std::string command =
      format("'{}' '{}' --print-recipe >/dev/full 2>&1", program.string(), kSmokeRecipe);
  const int status = std::system(command.c_str());
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 6);
}
