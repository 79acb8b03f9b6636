// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/residual_norm.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/ops/add.h"
#include "lib/ops/rms_norm.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

constexpr double kEps = 1e-6;
const RandomKey kKey = RandomKey{3}.fold("residual");

// Index of the mask of element `at` of a tensor whose dimension `broadcast_dim` shares it.
uint64_t mask_index(const Shape& shape, int broadcast_dim, size_t at) {
  if (broadcast_dim < 0) return at;
  size_t inner = 1;
  for (int i = broadcast_dim + 1; i < shape.rank(); ++i) inner *= static_cast<size_t>(shape[i]);
  return at / inner / static_cast<size_t>(shape[broadcast_dim]) * inner + at % inner;
}

test::OpCase residual_case(const Shape& shape, double rate, int broadcast_dim) {
  const auto width = static_cast<size_t>(shape[-1]);
  const Dropout dropout{rate, kKey, broadcast_dim, 0};
  test::OpCase op_case;
  op_case.name = format("residual_norm {} rate {} over {}", shape.text(), rate, broadcast_dim);
  op_case.inputs = {{.shape = shape, .low = -2, .high = 2},
                    {.shape = shape, .low = -2, .high = 2},
                    {.shape = {shape[-1]}, .low = 0.5, .high = 1.5, .is_weight = true}};
  op_case.call = [=](const test::OpArguments& x) {
    const ResidualNorm result = residual_norm(x[0], x[1], x[2], dropout, kEps);
    return test::OpResults({result.sum, result.y});
  };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> sum, y;
    for (size_t i = 0; i < x[0].size(); ++i) {
      const bool is_kept = random_uniform(kKey, mask_index(shape, broadcast_dim, i)) >= rate;
      sum.push_back(x[0][i] + (is_kept ? x[1][i] / (1 - rate) : 0));
    }
    for (size_t row = 0; row < sum.size(); row += width) {
      double squares = 0;
      for (size_t d = 0; d < width; ++d) squares += sum[row + d] * sum[row + d];
      const double root = std::sqrt(squares / static_cast<double>(width) + kEps);
      for (size_t d = 0; d < width; ++d) y.push_back(sum[row + d] / root * x[2][d]);
    }
    return test::OpValues{sum, y};
  };
  op_case.tolerance.bf16 = {2e-2, 1e-2};  // y is the norm of the rounded sum
  return op_case;
}

struct Gradients {
  Tensor sum, y, dx, dbranch, dscale;
};

// Results, and the gradients of sum . a + y . b.
template <class F>
Gradients run(const Tensor& x, const Tensor& branch, const Tensor& scale, const Tensor& a,
              const Tensor& b, F&& f) {
  const Var vars[] = {Var::leaf(x), branch.defined() ? Var::leaf(branch) : Var(), Var::leaf(scale)};
  const ResidualNorm result = f(vars[0], vars[1], vars[2]);
  backward({result.sum, result.y}, {a, b});
  return {result.sum.value(), result.y.defined() ? result.y.value() : Tensor(), vars[0].grad(),
          vars[1].grad(), vars[2].grad()};
}

Tensor draw(const Shape& shape, const char* name, DType dtype) {
  const Tensor values = Tensor::empty(shape, DType::f32);
  for (size_t i = 0; i < values.span<float>().size(); ++i)
    values.span<float>()[i] = 2 * random_uniform(RandomKey{5}.fold(name), i) - 1;
  return values.to(dtype);
}

}  // namespace

TEST_CASE("residual_norm adds what dropout leaves of the branch and normalises the sum",
          "[ops][residual_norm]") {
  test::check_ops({residual_case({5, 24}, 0, -1), residual_case({2, 3, 7}, 0.3, -1),
                   residual_case({3, 4, 10}, 0.5, 1), residual_case({3, 4, 6}, 0.5, 0),
                   residual_case({1}, 0, -1), residual_case({0, 8}, 0.5, -1)});
}

TEST_CASE("residual_norm of rows of any length", "[ops][residual_norm]") {
  // What a thread of a GPU holds of a row: 1, 2 or 4 vectors, or none of a longer or an odd row.
  for (auto op_case : {residual_case({3, 1000}, 0.3, -1), residual_case({2, 2, 2000}, 0.3, 1),
                       residual_case({3, 4000}, 0, -1), residual_case({2, 1, 8000}, 0.3, 1),
                       residual_case({2, 16400}, 0.3, -1), residual_case({3, 1, 3001}, 0.3, 0)}) {
    op_case.gradient_tolerance.bf16 = {2e-2, 2e-2};
    test::check_op(op_case);
  }
}

TEST_CASE("residual_norm sums the gradient of the scale in fixed chunks of rows",
          "[ops][residual_norm]") {
  auto op_case = residual_case({3, 100, 40}, 0.2, 1);
  op_case.gradient_tolerance.f32 = {1e-4, 1e-5};  // sums of 300 terms of either sign
  op_case.gradient_tolerance.bf16 = {2e-2, 2e-2};
  test::check_op(op_case);
}

TEST_CASE("residual_sum adds what dropout leaves of the branch", "[ops][residual_norm]") {
  for (const Shape& shape : {Shape{3, 4, 24}, Shape{3, 4, 7}, Shape{2, 5, 520}, Shape{0, 2, 8}})
    for (int broadcast_dim : {-1, 1}) {
      auto op_case = residual_case(shape, 0.4, broadcast_dim);
      op_case.name += " alone";
      op_case.inputs.pop_back();
      op_case.call = [=](const test::OpArguments& x) {
        return residual_sum(x[0], x[1], {0.4, kKey, broadcast_dim, 0});
      };
      op_case.reference = [both = op_case.reference,
                           width = static_cast<size_t>(shape[-1])](const test::OpValues& x) {
        return test::OpValues{both({x[0], x[1], std::vector<double>(width, 1.0)})[0]};
      };
      test::check_op(op_case);
    }
}

TEST_CASE("residual_norm is add, dropout and rms_norm, to the bit in f32", "[ops][residual_norm]") {
  const Shape shape = {3, 20, 72};
  const DType f32 = DType::f32;
  const Tensor x = draw(shape, "x", f32), branch = draw(shape, "branch", f32);
  const Tensor scale = draw({72}, "scale", f32), a = draw(shape, "a", f32),
               b = draw(shape, "b", f32);
  for (double rate : {0.0, 0.2})
    for (int broadcast_dim : {-1, 1}) {
      const Dropout options{rate, kKey, broadcast_dim, 4};
      const Gradients fused = run(x, branch, scale, a, b, [&](Var p, Var q, Var s) {
        return residual_norm(p, q, s, options, kEps);
      });
      const Gradients parts = run(x, branch, scale, a, b, [&](Var p, Var q, Var s) {
        const Var sum = add(p, dropout(q, options));
        return ResidualNorm{sum, rms_norm(sum, s, kEps)};
      });
      test::require_same_bits(fused.sum, parts.sum);
      test::require_same_bits(fused.y, parts.y);
      test::require_same_bits(fused.dx, parts.dx);
      test::require_same_bits(fused.dbranch, parts.dbranch);
      test::require_same_bits(fused.dscale, parts.dscale);
    }
}

TEST_CASE("residual_sum is the sum of residual_norm, to the bit", "[ops][residual_norm]") {
  const Shape shape = {3, 20, 72};
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = draw(shape, "x", dtype), branch = draw(shape, "branch", dtype);
    const Tensor scale = draw({72}, "scale", DType::f32), a = draw(shape, "a", dtype);
    for (double rate : {0.0, 0.2}) {
      const Dropout options{rate, kKey, 1, 4};
      const Gradients fused = run(x, branch, scale, a, Tensor(), [&](Var p, Var q, Var s) {
        return residual_norm(p, q, s, options, kEps);
      });
      const Gradients sum = run(x, branch, scale, a, Tensor(), [&](Var p, Var q, Var) {
        return ResidualNorm{residual_sum(p, q, options), Var()};
      });
      test::require_same_bits(sum.sum, fused.sum);
      test::require_same_bits(sum.dx, fused.dx);
      test::require_same_bits(sum.dbranch, fused.dbranch);
    }
  }
}

TEST_CASE("without a branch the sum is x, and either result may be unused",
          "[ops][residual_norm]") {
  const Shape shape = {4, 20};
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = draw(shape, "x", dtype), a = draw(shape, "a", dtype);
    const Tensor b = draw(shape, "b", dtype), scale = draw({20}, "scale", DType::f32);
    auto call = [](Var p, Var q, Var s) { return residual_norm(p, q, s, {}, kEps); };
    const Gradients alone = run(x, Tensor(), scale, Tensor(), b, call);
    const Gradients parts = run(x, Tensor(), scale, Tensor(), b, [](Var p, Var, Var s) {
      return ResidualNorm{p, rms_norm(p, s, kEps)};
    });
    CHECK(alone.sum.raw() == x.raw());
    test::require_same_bits(alone.y, parts.y);
    test::require_same_bits(alone.dx, parts.dx);
    test::require_same_bits(alone.dscale, parts.dscale);
    const Gradients sum_only = run(x, b, scale, a, Tensor(), call);
    test::require_same_bits(sum_only.dx, a);
    test::require_same_bits(sum_only.dbranch, a);
  }
}

TEST_CASE("the gradients of residual_norm leave those that others hold alone",
          "[ops][residual_norm]") {
  const Shape shape = {4, 20};
  const Tensor x = draw(shape, "x", DType::f32), branch = draw(shape, "branch", DType::f32);
  const Tensor scale = draw({20}, "scale", DType::f32);
  const Tensor a = draw(shape, "a", DType::f32), b = draw(shape, "b", DType::f32);
  auto call = [](Var p, Var q, Var s) { return residual_norm(p, q, s, {0.3, kKey}, kEps); };
  const Gradients held = run(x, branch, scale, a, b, call);
  test::require_same_bits(a, draw(shape, "a", DType::f32));
  test::require_same_bits(b, draw(shape, "b", DType::f32));
  // A gradient that only the tape holds is written over.
  for (double which : {0.0, 1.0}) {
    const Var p = Var::leaf(x), q = Var::leaf(branch), s = Var::leaf(scale);
    const ResidualNorm result = call(p, q, s);
    const Var sum = stmoe::scale(result.sum, 1 - which), y = stmoe::scale(result.y, which);
    backward({sum, y}, {a, b});
    const Tensor no_a = which == 0 ? a : Tensor::zeros(shape, DType::f32);
    const Tensor no_b = which == 1 ? b : Tensor::zeros(shape, DType::f32);
    const Gradients expected = run(x, branch, scale, no_a, no_b, call);
    test::require_same_bits(p.grad(), expected.dx);
    test::require_same_bits(q.grad(), expected.dbranch);
    test::require_same_bits(s.grad(), expected.dscale);
  }
}

TEST_CASE("residual_norm refuses operands that do not fit", "[ops][residual_norm]") {
  const Var x(Tensor::zeros({2, 3}, DType::bf16)), scale(Tensor::zeros({3}, DType::f32));
  CHECK_THROWS_WITH(residual_norm(x, x, Var(Tensor::zeros({4}, DType::f32)), {}),
                    Catch::Contains("scale is f32 [4], expected f32 [3]"));
  CHECK_THROWS_WITH(residual_norm(x, Var(Tensor::zeros({3, 2}, DType::bf16)), scale, {}),
                    Catch::Contains("x is bf16 [2, 3], the branch bf16 [3, 2]"));
  CHECK_THROWS_AS(residual_norm(x, x, scale, {0.5, kKey, 1}), BugError);
  CHECK_THROWS_AS(residual_norm(x, x, scale, {1.0, kKey}), BugError);
}

TEST_CASE("residual_norm speed", "[ops][residual_norm][.bench]") {
  test::time_op(residual_case({8, 512, 512}, 0, -1));
  test::time_op(residual_case({8, 512, 512}, 0.1, -1));
  test::time_op(residual_case({8, 512, 512}, 0.1, 1));
}

}  // namespace stmoe
