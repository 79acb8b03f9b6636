// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "lib/optim/optimizer.h"
#include "lib/optim/schedule.h"

namespace stmoe::test {
namespace {

struct ScheduleRecipe {
  Choice<Schedule> schedule{"constant"};
  Choice<Optimizer> optimizer{"adafactor"};
  void visit(auto& v) {
    v("schedule", schedule, "learning rate by step");
    v("optimizer", optimizer, "what turns gradients into weights");
  }
};

std::unique_ptr<Schedule> schedule_of(const std::string& section, int64_t total_steps = 100) {
  const auto recipe = parse_config<ScheduleRecipe>("schedule: " + section, "recipe.yaml");
  return make_schedule(recipe.schedule, total_steps);
}

void require_rates(const std::string& section,
                   const std::vector<std::pair<int64_t, double>>& expected,
                   int64_t total_steps = 100) {
  const auto schedule = schedule_of(section, total_steps);
  for (const auto& [step, rate] : expected) {
    INFO(section << " at step " << step);
    CHECK(schedule->rate(step) == Approx(rate).epsilon(1e-12).margin(1e-15));
  }
}

std::string error_of(const std::string& yaml) {
  try {
    const auto recipe = parse_config<ScheduleRecipe>(yaml, "recipe.yaml");
    make_schedule(recipe.schedule, 100);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("rsqrt has T5's rates", "[optim][schedule]") {
  require_rates(
      "{kind: rsqrt}",
      {{0, 0.01}, {1, 0.01}, {9999, 0.01}, {10000, 0.01}, {40000, 0.005}, {250000, 0.002}});
  CHECK(schedule_of("{kind: rsqrt}")->rate(550000) == Approx(0.00134840).epsilon(1e-6));
  CHECK(schedule_of("{kind: rsqrt}")->rate(10001) < 0.01);
}

TEST_CASE("rsqrt scales, and can rise linearly", "[optim][schedule]") {
  require_rates("{kind: rsqrt, scale: 3, warmup_steps: 100}", {{0, 0.3}, {100, 0.3}, {900, 0.1}});
  require_rates("{kind: rsqrt, warmup_steps: 100, linear_warmup: true}",
                {{0, 0.001}, {49, 0.05}, {99, 0.1}, {100, 0.1}, {400, 0.05}});
}

TEST_CASE("a warm-up starts above zero and ends at the rate", "[optim][schedule]") {
  require_rates("{kind: constant, learning_rate: 0.002}", {{0, 0.002}, {123456, 0.002}});
  require_rates("{kind: constant, learning_rate: 0.002, warmup_steps: 4}",
                {{0, 0.0005}, {1, 0.001}, {3, 0.002}, {4, 0.002}, {5, 0.002}});
}

TEST_CASE("linear and cosine fall from the peak to the end rate", "[optim][schedule]") {
  require_rates("{kind: linear, learning_rate: 1, end_learning_rate: 0.2, warmup_steps: 20}",
                {{0, 0.05}, {19, 1}, {20, 1}, {60, 0.6}, {100, 0.2}, {5000, 0.2}});
  require_rates("{kind: linear, learning_rate: 1, decay_steps: 10}",
                {{0, 1}, {5, 0.5}, {10, 0}, {11, 0}});
  require_rates("{kind: cosine, learning_rate: 1, end_learning_rate: 0.2, warmup_steps: 20}",
                {{0, 0.05},
                 {20, 1},
                 {40, 0.2 + 0.8 * (2 + std::sqrt(2.0)) / 4},
                 {60, 0.6},
                 {80, 0.2 + 0.8 * (2 - std::sqrt(2.0)) / 4},
                 {100, 0.2},
                 {101, 0.2}});
}

TEST_CASE("wrong schedules and optimizers are usage errors that name the key",
          "[optim][schedule][errors]") {
  using Catch::Contains;
  CHECK_THAT(error_of("schedule: {kind: cosin}"), Contains("recipe.yaml:1") && Contains("cosine"));
  CHECK_THAT(error_of("schedule: {kind: rsqrt, warmup_step: 3}"),
             Contains("schedule.warmup_step") && Contains("warmup_steps"));
  CHECK_THAT(error_of("schedule: {kind: rsqrt, learning_rate: 3}"),
             Contains("schedule.learning_rate"));
  CHECK_THAT(error_of("schedule: {kind: rsqrt, warmup_steps: 0}"),
             Contains("schedule.warmup_steps") && Contains("0"));
  CHECK_THAT(error_of("schedule: {kind: constant, learning_rate: fast}"),
             Contains("schedule.learning_rate") && Contains("fast"));
  CHECK_THAT(error_of("schedule: {kind: linear, warmup_steps: 100}"),
             Contains("schedule.warmup_steps") && Contains("100"));
  CHECK_THAT(error_of("optimizer: {kind: adafactr}"), Contains("adafactor"));
  CHECK_THAT(error_of("optimizer: {kind: adafactor, beta2: 0.9}"), Contains("optimizer.beta2"));
  CHECK_THAT(error_of("optimizer: {kind: adafactor, clip_scope: layer}"),
             Contains("optimizer.clip_scope") && Contains("expert") && Contains("tensor"));
  CHECK_THAT(error_of("optimizer: {kind: adamw, epsilon: 0}"), Contains("optimizer.epsilon"));
  CHECK_THAT(error_of("optimizer: {kind: adamw, beta1: 1}"), Contains("optimizer.beta1"));
}

}  // namespace stmoe::test
