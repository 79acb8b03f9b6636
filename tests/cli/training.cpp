// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/training.h"

#include <sstream>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include "lib/base/format.h"

namespace stmoe {
namespace {

// Held while the shared data is made: tests run as processes side by side.
class FileLock {
 public:
  explicit FileLock(const Path& path) : file_(::open(path.c_str(), O_RDWR | O_CREAT, 0666)) {
    REQUIRE(file_ >= 0);
    REQUIRE(::flock(file_, LOCK_EX) == 0);
  }
  ~FileLock() { ::close(file_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int file_;
};

bool is_newer(const Path& file, const Path& than) {
  std::error_code missing;
  const auto time = std::filesystem::last_write_time(file, missing);
  return !missing && time > std::filesystem::last_write_time(than);
}

void run_data(std::vector<std::string> arguments) {
  arguments.push_back("--overwrite");
  require_exit_code(run_process("stmoe-data", arguments), 0);
}

SharedData make_shared_data() {
  const Path folder = Path(STMOE_BINARY_DIR) / "tests/cli/shared";
  const Path text = Path(STMOE_SOURCE_DIR) / "recipes/data/english";
  const SharedData data{folder / "small.model", folder / "train.h5", folder / "validation.h5"};
  make_directories(folder);
  const FileLock lock(folder / ".lock");
  if (is_newer(data.validation, Path(STMOE_BINARY_DIR) / "bin/stmoe-data")) return data;
  const std::string train = (text / "english-train.00000-of-00003.json.gz").string();
  run_data({"vocabulary", "--size", "1000", "--sample-bytes", "1e6", "--input", train, "--output",
            data.vocabulary.string()});
  run_data(
      {"corpus", "--vocabulary", data.vocabulary.string(), "--output", data.train.string(), train});
  run_data({"corpus", "--vocabulary", data.vocabulary.string(), "--output",
            data.validation.string(),
            (text / "english-validation.00000-of-00001.json.gz").string()});
  return data;
}

}  // namespace

const SharedData& shared_data() {
  static const SharedData data = make_shared_data();
  return data;
}

std::vector<std::string> smoke_run(const Path& output, const std::vector<std::string>& settings) {
  const SharedData& data = shared_data();
  std::vector<std::string> arguments = {kSmokeRecipe, "--output", output.string(), "--threads",
                                        "1"};
  auto set = [&](const std::string& setting) {
    arguments.insert(arguments.end(), {"--set", setting});
  };
  set("vocabulary.model=" + data.vocabulary.string());
  set("data.train=" + data.train.string());
  set("data.validation=" + data.validation.string());
  for (const std::string& setting : settings) set(setting);
  return arguments;
}

std::vector<std::string> smoke_run(const Path& output, const std::vector<std::string>& settings,
                                   const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = smoke_run(output, settings);
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return arguments;
}

std::string metrics_without_times(const Path& run) {
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  std::string result, line;
  while (std::getline(lines, line)) {
    auto entry = nlohmann::ordered_json::parse(line);
    for (const char* key : {"seconds", "tokens_per_second", "model_flops_utilization"})
      entry.erase(key);
    result += entry.dump() + "\n";
  }
  return result;
}

Path checkpoint_of(const Path& run, int64_t step) {
  return run / "checkpoints" / format("step-{:08}", step);
}

std::string weights_of(const Path& run, int64_t step) {
  return read_file(checkpoint_of(run, step) / "shard-00000-of-00001.h5");
}

void require_same_run(const Path& run, const Path& expected, int64_t step) {
  const std::string metrics = metrics_without_times(run);
  REQUIRE(metrics != "");
  REQUIRE(metrics == metrics_without_times(expected));
  REQUIRE(weights_of(run, step) == weights_of(expected, step));
}

void require_verified(const Path& checkpoint) {
  require_exit_code(run_process("stmoe-convert", {"verify", checkpoint.string()}), 0);
}

void require_exit_code(const ProcessOutcome& outcome, int exit_code) {
  INFO("standard error:\n" << outcome.errors);
  REQUIRE(outcome.signal == 0);
  REQUIRE(outcome.exit_code == exit_code);
}

}  // namespace stmoe
