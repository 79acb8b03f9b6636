// SPDX-License-Identifier: Apache-2.0
#include "lib/base/profile.h"

#include <catch2/catch.hpp>

#include "lib/base/clock.h"

namespace stmoe {
namespace {

void spin(double seconds) {
  const Stopwatch watch;
  while (watch.seconds() < seconds) {
  }
}

OpTime row(const std::string& op) {
  for (const OpTime& time : profile_by_op())
    if (time.op == op) return time;
  return {};
}

}  // namespace

TEST_CASE("a scope's own time leaves out the scopes inside it", "[base][profile]") {
  start_profile();
  {
    const OpScope outer("outer", OpScope::Pass::forward);
    spin(0.002);
    for (int i = 0; i < 2; ++i) {
      const OpScope inner("inner", OpScope::Pass::backward);
      spin(0.02);
    }
  }
  stop_profile();
  CHECK(row("outer").calls == 1);
  CHECK(row("inner").calls == 2);
  CHECK(row("outer").backward_seconds == 0);
  CHECK(row("inner").forward_seconds == 0);
  CHECK(row("outer").forward_seconds >= 0.002);
  CHECK(row("outer").forward_seconds < row("inner").backward_seconds);
  CHECK(row("inner").backward_seconds >= 0.04);
  CHECK(profile_by_op().front().op == "inner");
}

TEST_CASE("nothing is recorded while profiling is off, and starting clears", "[base][profile]") {
  start_profile();
  { const OpScope scope("first", OpScope::Pass::forward); }
  stop_profile();
  { const OpScope scope("ignored", OpScope::Pass::forward); }
  CHECK(profile_by_op().size() == 1);
  start_profile();
  stop_profile();
  CHECK(profile_by_op().empty());
}

}  // namespace stmoe
