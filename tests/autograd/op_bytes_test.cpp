// SPDX-License-Identifier: Apache-2.0
// Bytes that the profile counts for an op, against counts by hand. Elements are f64: 8 bytes.
#include "lib/autograd/op_bytes.h"

#include <catch2/catch.hpp>

#include "lib/base/profile.h"
#include "tests/autograd/small_ops.h"

namespace stmoe::test {
namespace {

constexpr int64_t kElements = 10;
constexpr double kTensor = 8.0 * kElements;

Var leaf() { return Var::leaf(Tensor::full({kElements}, DType::f64, 2)); }

// Of the op's row after its forward and backward pass.
OpTime profile_of(const char* op, const std::function<Var()>& run) {
  start_profile();
  Var y;
  {
    const OpScope scope(op, OpScope::Pass::forward);
    y = run();
  }
  backward({y}, {Tensor::full(y.shape(), DType::f64, 1)});
  for (const OpTime& time : stop_profile().ops)
    if (time.op == op) return time;
  FAIL("no row of " << op);
  return {};
}

Var overwriting(const Var& x) {
  return record("overwriting", map(x.value(), x.value(), total), {x},
                [](const Tensor& dy) -> std::vector<Tensor> {
                  note_overwritten_gradient();
                  for (double& value : dy.span<double>()) value *= 2;
                  return {dy};
                });
}

}  // namespace

TEST_CASE("an op moves its inputs, its outputs, and backwards what its closure kept",
          "[autograd][profile]") {
  const Var x = leaf();
  const OpTime kept = profile_of("square", [&] { return square(x); });
  CHECK(kept.forward.work.bytes == 2 * kTensor);
  CHECK(kept.backward.work.bytes == 3 * kTensor);  // dy, x, dx
  CHECK(kept.backward.calls == 1);
}

TEST_CASE("a value that others keep alive is not counted for a closure that does not need it",
          "[autograd][profile]") {
  const Var x = leaf(), y = leaf();
  const OpTime passed_on = profile_of("plus", [&] { return plus(x, y); });
  CHECK(passed_on.forward.work.bytes == 3 * kTensor);
  CHECK(passed_on.backward.work.bytes == 0);  // both gradients are dy itself
  const OpTime overwritten = profile_of("overwriting", [&] { return overwriting(x); });
  CHECK(overwritten.backward.work.bytes == 2 * kTensor);
}

TEST_CASE("a gradient that the closure adds to a leaf's is counted", "[autograd][profile]") {
  const Var x = leaf();
  auto adding = [&] {
    return record("adding", map(x.value(), x.value(), total), {x},
                  [sum = LeafGradient(x)](const Tensor& dy) -> std::vector<Tensor> {
                    sum.add([&](const Tensor& dx, bool accumulate) {
                      for (int64_t i = 0; i < kElements; ++i)
                        dx.data<double>()[i] =
                            2 * dy.data<double>()[i] + (accumulate ? dx.data<double>()[i] : 0);
                    });
                    return {Tensor()};
                  });
  };
  CHECK(profile_of("adding", adding).backward.work.bytes == 2 * kTensor);  // dy, dx
  CHECK(profile_of("adding", adding).backward.work.bytes == 3 * kTensor);  // dx is read, too
  CHECK(x.grad().data<double>()[0] == 4);
}

TEST_CASE("a view moves nothing, and an op's own count comes first", "[autograd][profile]") {
  const Var x = Var::leaf(Tensor::full({2, 5}, DType::f64, 1));
  const OpTime view = profile_of("turned", [&] { return turned(x); });
  CHECK(view.forward.work.bytes == 0);
  const OpTime own = profile_of("square", [&] {
    count_bytes(3);
    const Var y = square(x);
    count_bytes(4);
    return y;
  });
  CHECK(own.forward.work.bytes == 7);
}

TEST_CASE("gradients that meet are a row of their own", "[autograd][profile]") {
  const Var x = leaf();
  start_profile();
  const Var y = times(x, x);
  backward({y}, {Tensor::full({kElements}, DType::f64, 1)});
  const Profile profile = stop_profile();
  bool is_found = false;
  for (const OpTime& op : profile.ops) {
    if (op.op != "sum of gradients") continue;
    is_found = true;
    CHECK(op.backward.calls == 1);
    CHECK(op.backward.work.bytes == 3 * kTensor);
  }
  CHECK(is_found);
}

}  // namespace stmoe::test
