// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/process.h"

#include <csignal>
#include <cstdlib>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/format.h"

namespace stmoe {
namespace {

// In the child: standard streams from and to files, then the program.
[[noreturn]] void start(const std::string& program, const std::vector<std::string>& arguments,
                        const RunningProcess::Options& options, const Path& folder) {
  const auto redirect = [&](const char* name, int flags, int target) {
    const int descriptor = ::open((folder / name).c_str(), flags, 0666);
    if (descriptor < 0 || ::dup2(descriptor, target) < 0) ::_exit(127);
    ::close(descriptor);
  };
  redirect("stdin", O_RDONLY, STDIN_FILENO);
  redirect("stdout", O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
  redirect("stderr", O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
  if (options.file_size_limit) {
    const auto bytes = static_cast<rlim_t>(*options.file_size_limit);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  for (const std::string& entry : options.environment) ::putenv(const_cast<char*>(entry.c_str()));
  const std::string path = std::string(STMOE_BINARY_DIR) + "/bin/" + program;
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(path.c_str(), argv.data());
  ::_exit(127);
}

}  // namespace

RunningProcess::RunningProcess(const std::string& program,
                               const std::vector<std::string>& arguments, const Options& options)
    : folder_("process") {
  folder_.write("stdin", options.input);
  folder_.write("stdout", "");
  folder_.write("stderr", "");
  child_ = ::fork();
  REQUIRE(child_ >= 0);
  if (child_ == 0) start(program, arguments, options, folder_ / "");
}

RunningProcess::~RunningProcess() {
  if (child_ <= 0 || status_) return;
  ::kill(child_, SIGKILL);
  ::waitpid(child_, nullptr, 0);
}

void RunningProcess::send(int signal) const { REQUIRE(::kill(child_, signal) == 0); }

bool RunningProcess::has_ended() {
  int status = 0;
  if (!status_ && ::waitpid(child_, &status, WNOHANG) == child_) status_ = status;
  return status_.has_value();
}

bool RunningProcess::wait_for_text(const std::string& text) {
  for (;;) {
    const bool ended = has_ended();
    if (read_file(folder_ / "stderr").find(text) != std::string::npos) return true;
    if (ended) return false;
    ::usleep(2000);
  }
}

ProcessOutcome RunningProcess::wait() {
  int status = 0;
  if (!status_) {
    REQUIRE(::waitpid(child_, &status, 0) == child_);
    status_ = status;
  }
  ProcessOutcome outcome;
  if (WIFEXITED(*status_)) outcome.exit_code = WEXITSTATUS(*status_);
  if (WIFSIGNALED(*status_)) outcome.signal = WTERMSIG(*status_);
  outcome.output = read_file(folder_ / "stdout");
  outcome.errors = read_file(folder_ / "stderr");
  return outcome;
}

ProcessOutcome run_process(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& input) {
  RunningProcess::Options options;
  options.input = input;
  return RunningProcess(program, arguments, options).wait();
}

TestFolder::TestFolder(const std::string& name)
    : path_(Path(STMOE_BINARY_DIR) / "tests/cli/files" /
            format("{}-{}-{}", name, ::getpid(), reinterpret_cast<uintptr_t>(this))) {
  stmoe::remove_all(path_);
  make_directories(path_);
}

TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TestFolder::write(const Path& name, const std::string& contents) const {
  make_directories((path_ / name).parent_path());
  write_file_atomically(path_ / name, contents);
  return (path_ / name).string();
}

}  // namespace stmoe
