// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/process.h"

#include <cstdlib>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/format.h"

namespace stmoe {
namespace {

// In the child: standard streams from and to files, then the program.
[[noreturn]] void start(const std::string& program, const std::vector<std::string>& arguments,
                        const Path& folder) {
  const auto redirect = [&](const char* name, int flags, int target) {
    const int descriptor = ::open((folder / name).c_str(), flags, 0666);
    if (descriptor < 0 || ::dup2(descriptor, target) < 0) ::_exit(127);
    ::close(descriptor);
  };
  redirect("stdin", O_RDONLY, STDIN_FILENO);
  redirect("stdout", O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
  redirect("stderr", O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
  const std::string path = std::string(STMOE_BINARY_DIR) + "/bin/" + program;
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(path.c_str(), argv.data());
  ::_exit(127);
}

}  // namespace

ProcessOutcome run_process(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& input) {
  TestFolder folder("process");
  folder.write("stdin", input);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) start(program, arguments, folder / "");
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  ProcessOutcome outcome;
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  outcome.output = read_file(folder / "stdout");
  outcome.errors = read_file(folder / "stderr");
  return outcome;
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
