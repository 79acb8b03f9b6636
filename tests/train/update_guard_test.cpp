// SPDX-License-Identifier: Apache-2.0
#include "lib/train/update_guard.h"

#include <cmath>
#include <limits>

#include <catch2/catch.hpp>

#include "lib/base/error.h"

namespace stmoe::test {
namespace {

using Catch::Contains;
using Verdict = UpdateGuard::Verdict;

constexpr const char* kNan = "the loss";

UpdateGuard guard_of(double threshold, int64_t window, int64_t skipped, int64_t rollbacks) {
  SpikeConfig config;
  config.threshold = threshold;
  config.window = window;
  config.max_skipped = skipped;
  config.max_rollbacks = rollbacks;
  return UpdateGuard(config);
}

Parameter parameter_of(const std::string& name, float value, float gradient) {
  const Var leaf = Var::leaf(Tensor::full({4}, DType::f32, value));
  leaf.set_grad(Tensor::full({4}, DType::f32, gradient));
  return {name, leaf};
}

}  // namespace

TEST_CASE("a loss far above the mean of a full window is refused", "[train][guard]") {
  UpdateGuard guard = guard_of(1.0, 3, 100, 0);
  CHECK(guard.judge(1, 5.0, "") == Verdict::apply);
  CHECK(guard.judge(2, 99.0, "") == Verdict::apply);  // no full window yet
  CHECK(guard.judge(3, 1.0, "") == Verdict::apply);
  CHECK(guard.judge(4, 36.5, "") == Verdict::skip);  // the mean is 35
  CHECK(guard.judge(5, 36.0, "") == Verdict::apply);
  // Now over 99, 1 and 36; what was refused does not count.
  CHECK(guard.judge(6, 46.4, "") == Verdict::skip);
  CHECK(guard.judge(7, 46.2, "") == Verdict::apply);
  CHECK(guard.skipped() == 2);
}

TEST_CASE("without a threshold only what is not finite is refused", "[train][guard]") {
  UpdateGuard guard = guard_of(0.0, 2, 100, 0);
  for (double loss : {1.0, 1.0, 1e9}) CHECK(guard.judge(1, loss, "") == Verdict::apply);
  CHECK(guard.judge(4, NAN, kNan) == Verdict::skip);
  CHECK(guard.judge(5, 1.0, "the gradient of w") == Verdict::skip);
}

TEST_CASE("too many refusals in a row go back, too many roll-backs end the run", "[train][guard]") {
  UpdateGuard guard = guard_of(0.0, 1, 2, 1);
  CHECK(guard.judge(1, NAN, kNan) == Verdict::skip);
  CHECK(guard.judge(2, 1.0, "") == Verdict::apply);  // ends the row
  CHECK(guard.judge(3, NAN, kNan) == Verdict::skip);
  CHECK(guard.judge(4, NAN, kNan) == Verdict::skip);
  CHECK(guard.judge(5, NAN, kNan) == Verdict::roll_back);
  guard.rolled_back();
  CHECK(guard.rollbacks() == 1);
  CHECK(guard.judge(6, NAN, kNan) == Verdict::skip);
  CHECK(guard.judge(7, NAN, kNan) == Verdict::skip);
  try {
    guard.judge(8, NAN, kNan);
    FAIL("not reported as diverged");
  } catch (const DivergedError& error) {
    CHECK(error.code() == ExitCode::diverged);
    CHECK_THAT(error.what(), Contains("step 8") && Contains("the loss is not finite"));
  }
}

TEST_CASE("a restored guard judges as the one that was saved", "[train][guard]") {
  UpdateGuard first = guard_of(1.0, 2, 3, 2);
  for (double loss : {2.0, 3.0}) first.judge(1, loss, "");
  first.judge(3, 9.0, "");
  first.rolled_back();
  first.judge(4, 9.0, "");
  UpdateGuard second = guard_of(1.0, 2, 3, 2);
  second.restore(first.state());
  CHECK(second.state() == first.state());
  CHECK(second.skipped() == 2);
  CHECK(second.rollbacks() == 1);
  for (double loss : {3.4, 3.6, 9.0, 9.0, 9.0})
    CHECK(second.judge(5, loss, "") == first.judge(5, loss, ""));
  CHECK(second.state() == first.state());
}

TEST_CASE("what is not finite first is named: a weight, the loss, a gradient", "[train][guard]") {
  const float nan = NAN, infinity = std::numeric_limits<float>::infinity();
  const ParameterList fine = {parameter_of("a", 1, 1), parameter_of("b", 1, 1)};
  CHECK(first_non_finite(fine, 1.0, 1.0) == "");
  CHECK(first_non_finite(fine, NAN, NAN) == "the loss");
  const ParameterList gradient = {parameter_of("a", 1, 1), parameter_of("b", 1, infinity)};
  CHECK(first_non_finite(gradient, 1.0, infinity) == "the gradient of b");
  const ParameterList weight = {parameter_of("a", 1, nan), parameter_of("b", nan, nan)};
  CHECK(first_non_finite(weight, NAN, NAN) == "b");
  CHECK(first_non_finite(fine, 1.0, infinity) == "the gradient norm");
}

}  // namespace stmoe::test
