// SPDX-License-Identifier: Apache-2.0
#include "lib/base/profile.h"

#include <thread>

#include <catch2/catch.hpp>

#include "lib/base/clock.h"

namespace stmoe {
namespace {

void spin(double seconds) {
  const Stopwatch watch;
  while (watch.seconds() < seconds) {
  }
}

OpTime row(const Profile& profile, const std::string& op) {
  for (const OpTime& time : profile.ops)
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
  const Profile profile = stop_profile();
  const OpTime outer = row(profile, "outer"), inner = row(profile, "inner");
  CHECK(outer.forward.calls == 1);
  CHECK(outer.backward.calls == 0);
  CHECK(inner.backward.calls == 2);
  CHECK(inner.forward.seconds == 0);
  CHECK(outer.forward.seconds >= 0.002);
  CHECK(outer.forward.seconds < inner.backward.seconds);
  CHECK(inner.backward.seconds >= 0.04);
  CHECK(profile.ops.front().op == "inner");
}

TEST_CASE("nothing is recorded while profiling is off, and starting clears", "[base][profile]") {
  start_profile();
  { const OpScope scope("first", OpScope::Pass::forward); }
  CHECK(stop_profile().ops.size() == 1);
  { const OpScope scope("ignored", OpScope::Pass::forward); }
  start_profile();
  CHECK(stop_profile().ops.empty());
}

TEST_CASE("single events are kept up to a limit, with what other threads did meanwhile",
          "[base][profile]") {
  { const BackgroundScope ignored("before"); }
  start_profile(2);
  for (int i = 0; i < 3; ++i) const OpScope scope("op", OpScope::Pass::forward);
  std::thread([] {
    const BackgroundScope scope("background");
    const OpScope not_recorded("op", OpScope::Pass::forward);
  }).join();
  const Profile profile = stop_profile();
  REQUIRE(profile.events.size() == 3);
  CHECK(profile.events_left_out == 1);
  CHECK(std::string(profile.events.back().name) == "background");
  CHECK(profile.ops[0].forward.calls == 3);
  CHECK(std::string(current_op().op).empty());
}

TEST_CASE("a product's shape is told in the order rows, sum, columns", "[base][profile]") {
  ProductShape shape{.batch = 8, .m = 2, .n = 4, .k = 3, .type = ProductType::bf16};
  CHECK(shape.text() == "8 x 2, 3, 4 bf16");
  shape = {.m = 2,
           .n = 4,
           .k = 3,
           .is_a_transposed = true,
           .is_b_transposed = true,
           .accumulates = true,
           .note = "packed"};
  CHECK(shape.text() == "2, 3, 4 f32 A' B' += packed");
}

}  // namespace stmoe
