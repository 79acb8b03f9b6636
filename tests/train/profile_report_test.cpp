// SPDX-License-Identifier: Apache-2.0
#include "lib/train/profile_report.h"

#include <thread>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/base/clock.h"
#include "lib/train/benchmark.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

using Json = nlohmann::json;

void spin(double seconds) {
  const Stopwatch watch;
  while (watch.seconds() < seconds) {
  }
}

ProductShape shape(int64_t m, int64_t k, int64_t n) {
  return {.m = m, .n = n, .k = k, .bytes = 4.0 * static_cast<double>(m * k + k * n + m * n)};
}

// Two steps with two ops each, one of which multiplies twice, and a batch made meanwhile.
Profile example(size_t most_events) {
  start_profile(most_events);
  for (int step = 0; step < 2; ++step) {
    const StepScope whole;
    {
      const OpScope op("linear", OpScope::Pass::forward);
      for (int i = 0; i < 2; ++i) {
        const ProductScope product(shape(2, 3, 4));
        spin(0.001);
      }
      describe_op(100, false, "f32 [2, 3] -> f32 [2, 4]");
    }
    const OpScope op("relu", OpScope::Pass::backward);
    spin(0.002);
  }
  std::thread([] {
    const BackgroundScope batch("make a batch");
    spin(0.001);
  }).join();
  return stop_profile();
}

struct Span {
  double start, end;
};
Span span_of(const Json& event) {
  return {event["ts"], event["ts"].get<double>() + event["dur"].get<double>()};
}

std::vector<Json> events_of(const Json& trace, const std::string& kind) {
  std::vector<Json> found;
  for (const Json& event : trace["traceEvents"])
    if (event["ph"] == "X" && event["cat"] == kind) found.push_back(event);
  return found;
}

// Each inner event lies in exactly one outer one, and together they are not longer than it.
void require_nested(const std::vector<Json>& inner, const std::vector<Json>& outer) {
  constexpr double kRounding = 1e-3;  // microseconds
  std::vector<double> sums(outer.size());
  for (const Json& event : inner) {
    const Span span = span_of(event);
    int holders = 0;
    for (size_t i = 0; i < outer.size(); ++i) {
      const Span around = span_of(outer[i]);
      if (span.start < around.start - kRounding || span.end > around.end + kRounding) continue;
      ++holders;
      sums[i] += span.end - span.start;
    }
    REQUIRE(holders == 1);
  }
  for (size_t i = 0; i < outer.size(); ++i)
    REQUIRE(sums[i] <= outer[i]["dur"].get<double>() + kRounding);
}

}  // namespace

TEST_CASE("the trace is JSON whose events nest and add up", "[train][profile]") {
  const Profile profile = example(1000);
  const Json trace = Json::parse(chrome_trace(profile));
  const auto steps = events_of(trace, "step"), products = events_of(trace, "product"),
             batches = events_of(trace, "background");
  auto ops = events_of(trace, "forward");
  require_nested(products, ops);
  for (const Json& event : events_of(trace, "backward")) ops.push_back(event);
  require_nested(ops, steps);
  REQUIRE(steps.size() == 2);
  REQUIRE(ops.size() == 4);
  REQUIRE(products.size() == 4);
  REQUIRE(batches.size() == 1);
  CHECK(batches[0]["tid"] != steps[0]["tid"]);
  CHECK(products[0]["args"]["shapes"] == "2, 3, 4 f32");
  CHECK(ops[0]["args"]["shapes"] == "f32 [2, 3] -> f32 [2, 4]");
  CHECK(ops[0]["args"]["gflop"].get<double>() == Approx(2 * 2 * 24e-9));
  double whole = 0;
  for (const Json& step : steps) whole += 1e-6 * step["dur"].get<double>();
  CHECK(whole == Approx(profile.step_seconds));
}

TEST_CASE("a trace has no more events than asked for, and says how many it lacks",
          "[train][profile]") {
  const Json trace = Json::parse(chrome_trace(example(3)));
  size_t events = 0;
  for (const Json& event : trace["traceEvents"]) events += event["ph"] == "X" && event["tid"] == 1;
  CHECK(events == 3);
  CHECK(trace["eventsLeftOut"] == 7);
}

TEST_CASE("ops, products and the rest add up to the steps", "[train][profile]") {
  const Profile profile = example(0);
  REQUIRE(profile.steps == 2);
  double sum = profile.outside_ops_seconds;
  for (const OpTime& op : profile.ops) sum += op.forward.seconds + op.backward.seconds;
  CHECK(sum == Approx(profile.step_seconds));
  REQUIRE(profile.products.size() == 1);
  CHECK(profile.products[0].op == "linear");
  CHECK(profile.products[0].time.calls == 4);
  CHECK(profile.products[0].time.work.all_flops() == 4 * 48);
  CHECK(profile.products[0].time.work.bytes == 4 * 4 * (6 + 12 + 8));
  const OpTime& linear = profile.ops[0].op == "linear" ? profile.ops[0] : profile.ops[1];
  CHECK(linear.forward.work.all_flops() == 4 * 48);  // as its products
  CHECK(linear.forward.work.bytes == 200);           // but only its own tensors
  CHECK(profile.events.empty());
  const std::string table = profile_table(profile, {{1e9, 1e9, 0}, 1e9});
  CHECK_THAT(table, Catch::Contains("2, 3, 4 f32"));
  CHECK_THAT(table, Catch::Contains("outside ops"));
  CHECK_THAT(profile_table({}, {}), Catch::Contains("no step"));
}

TEST_CASE("what bounds work is the larger share of the two peaks", "[train][profile]") {
  const MachinePeaks peaks{{100, 200, 0}, 10};
  PassTime time{2, 1, {}};
  CHECK(std::string(reached(time, peaks).of).empty());
  time.work.flops = {60, 40, 0};  // 0.6 s and 0.2 s at the peaks
  time.work.bytes = 4;            // 0.4 s
  CHECK(reached(time, peaks).share == Approx(0.4));
  CHECK(std::string(reached(time, peaks).of) == "product peak");
  time.work.bytes = 10;
  CHECK(reached(time, peaks).share == Approx(0.5));
  CHECK(std::string(reached(time, peaks).of) == "memory");
}

}  // namespace stmoe::test
