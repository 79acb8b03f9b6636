// SPDX-License-Identifier: Apache-2.0
#include "lib/base/error.h"

#include <cerrno>

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("every kind of error carries its exit code", "[base][error]") {
  CHECK(BugError("").code() == ExitCode::bug);
  CHECK(UsageError("").code() == ExitCode::usage);
  CHECK(InputError("").code() == ExitCode::input);
  CHECK(DivergedError("").code() == ExitCode::diverged);
  CHECK(PeerError("").code() == ExitCode::peer);
  CHECK(StorageError("").code() == ExitCode::storage);
  CHECK(InterruptedError("").code() == ExitCode::interrupted);
  CHECK(static_cast<int>(ExitCode::interrupted) == 75);
}

TEST_CASE("a failed check names the place, the condition and the sizes", "[base][error]") {
  int evaluated = 0;
  STMOE_CHECK(++evaluated == 1, "{}", "unused");
  CHECK(evaluated == 1);
  const int rows = 3;
  CHECK_THROWS_WITH(
      [&] { STMOE_CHECK(rows == 4, "{} rows", rows); }(),
      Catch::StartsWith("tests/base/error_test.cpp:") && Catch::EndsWith("rows == 4: 3 rows"));
  CHECK_THROWS_AS([&] { STMOE_CHECK(rows == 4); }(), BugError);
}

TEST_CASE("errno values have texts", "[base][error]") {
  CHECK(errno_text(ENOSPC) == "No space left on device");
}

}  // namespace stmoe
