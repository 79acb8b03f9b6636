// SPDX-License-Identifier: Apache-2.0
// Runs the built executables, and a folder for their files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "lib/base/files.h"

namespace stmoe {

struct ProcessOutcome {
  int exit_code = -1;  // -1: ended by a signal
  int signal = 0;      // which
  std::string output, errors;
};

// Runs bin/`program` of the build folder; `input` is its standard input.
ProcessOutcome run_process(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& input = "");

// A folder of its own for one test, removed at the end.
class TestFolder {
 public:
  explicit TestFolder(const std::string& name);
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  Path operator/(const Path& name) const { return path_ / name; }
  // Writes a file and returns its path.
  std::string write(const Path& name, const std::string& contents) const;

 private:
  Path path_;
};

// A program that runs beside the test. One that is still running at the end is killed.
class RunningProcess {
 public:
  struct Options {
    std::string input = {};                       // standard input
    std::optional<int64_t> file_size_limit = {};  // bytes that a file may grow to: a full disk for
                                                  // one process
    std::vector<std::string> environment = {};    // "NAME=value", added to the test's own
  };
  RunningProcess(const std::string& program, const std::vector<std::string>& arguments,
                 const Options& options);
  RunningProcess(const std::string& program, const std::vector<std::string>& arguments)
      : RunningProcess(program, arguments, Options{}) {}
  ~RunningProcess();

  void send(int signal) const;
  // Waits until the program has written `text` to standard error; false when it ended first.
  bool wait_for_text(const std::string& text);
  ProcessOutcome wait();

 private:
  bool has_ended();

  TestFolder folder_;
  pid_t child_ = -1;
  std::optional<int> status_;
};

}  // namespace stmoe
