// SPDX-License-Identifier: Apache-2.0
#include "lib/base/log.h"

#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "tests/support/temporary_folder.h"

namespace stmoe {

TEST_CASE("a log file gets the messages of its level and above", "[base][log]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "log.txt";
  attach_log_file(path.string());
  set_log_level(LogLevel::error);
  CHECK(!log_enabled(LogLevel::warn));
  log_warn("[test] {} is left out", "a warning");
  log_error("[test] {} braces {{}} and {}", 1, "{}");
  set_log_level(LogLevel::info);
  detach_log_file();
  const std::string text = read_file(path);
  CHECK_THAT(text, Catch::EndsWith(" E [test] 1 braces {} and {}\n"));
  CHECK_THAT(text, !Catch::Contains("left out"));
  CHECK(text.find("20") == 0);  // the time
}

TEST_CASE("a log file is appended to, and detached twice without harm", "[base][log]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "log.txt";
  set_log_level(LogLevel::error);
  for (int run = 0; run < 2; ++run) {
    attach_log_file(path.string());
    log_error("[test] run {}", run);
    detach_log_file();
    detach_log_file();
  }
  log_error("[test] after");
  set_log_level(LogLevel::info);
  const std::string text = read_file(path);
  CHECK_THAT(text, Catch::Contains("run 0\n") && Catch::EndsWith("run 1\n"));
}

TEST_CASE("a log file that cannot be opened is a storage error with the reason", "[base][log]") {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "file", "");
  CHECK_THROWS_AS(attach_log_file((folder.path() / "file" / "log.txt").string()), StorageError);
  CHECK_THROWS_WITH(attach_log_file(folder.path().string()), Catch::Contains("(Is a directory)"));
}

TEST_CASE("log levels are parsed by name", "[base][log]") {
  CHECK(parse_log_level("trace") == LogLevel::trace);
  CHECK(parse_log_level("warn") == LogLevel::warn);
  CHECK_THROWS_AS(parse_log_level("warning"), UsageError);
  CHECK_THROWS_WITH(parse_log_level("loud"), Catch::Contains("'loud' is unknown; expected trace"));
}

}  // namespace stmoe
