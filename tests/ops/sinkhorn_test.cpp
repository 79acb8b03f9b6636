// SPDX-License-Identifier: Apache-2.0
// Values are compared with Megatron-LM's in tests/moe/sinkhorn_router_test.cpp.
#include "lib/ops/sinkhorn.h"

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "lib/base/threads.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

Tensor draw_logits(int64_t tokens, int64_t experts, double range, DType dtype) {
  std::vector<double> logits;
  for (int64_t i = 0; i < tokens * experts; ++i)
    logits.push_back(range * random_normal(RandomKey{3}, static_cast<uint64_t>(i)));
  return Tensor::from<double>({tokens, experts}, logits).to(dtype);
}

TEST_CASE("sinkhorn gives rows and columns equal sums in every group", "[ops][router]") {
  for (DType dtype : {DType::f64, DType::f32}) {
    SinkhornOptions options;
    options.num_groups = 3;
    options.tolerance = dtype == DType::f64 ? 1e-10 : 1e-5;
    const Tensor y = sinkhorn(draw_logits(90, 7, 1, dtype), options);
    const auto values = values_of(y);
    std::vector<double> row(90), column(21);
    for (size_t i = 0; i < values.size(); ++i) {
      row[i / 7] += values[i];
      column[i / 210 * 7 + i % 7] += values[i];
    }
    for (double sum : row) require_close(sum, 1.0 / 30, {1e-6, 1e-4});
    for (double sum : column) require_close(sum, 1.0 / 7, {1e-6, 1e-4});
  }
}

// The loop as it is written in the header, for a fixed number of iterations.
std::vector<double> normalised(const std::vector<double>& logits, size_t experts, size_t groups,
                               const std::vector<int32_t>& mask, int iterations) {
  std::vector<double> y(logits.size());
  const size_t tokens = mask.size() / groups;
  for (size_t g = 0; g < groups; ++g) {
    std::vector<double> d1(experts, 1.0), d0(tokens);
    double real = 0;
    for (size_t t = 0; t < tokens; ++t) real += mask[g * tokens + t];
    const auto a = [&](size_t t, size_t e) {
      const double* row = logits.data() + (g * tokens + t) * experts;
      const double largest = *std::max_element(row, row + experts);
      return mask[g * tokens + t] ? std::exp(row[e] - largest) : 0.0;
    };
    for (int i = 0; i < iterations; ++i) {
      for (size_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (size_t e = 0; e < experts; ++e) sum += d1[e] * a(t, e);
        d0[t] = 1 / real / (sum + 1e-8);
      }
      for (size_t e = 0; e < experts; ++e) {
        double sum = 0;
        for (size_t t = 0; t < tokens; ++t) sum += d0[t] * a(t, e);
        d1[e] = 1 / static_cast<double>(experts) / (sum + 1e-8);
      }
    }
    for (size_t t = 0; t < tokens; ++t)
      for (size_t e = 0; e < experts; ++e)
        y[(g * tokens + t) * experts + e] = d0[t] * a(t, e) * d1[e];
  }
  return y;
}

OpCase sinkhorn_case(int64_t groups, int64_t tokens, int64_t experts, bool is_masked) {
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  for (size_t n = 0; is_masked && n < mask.size(); n += 3) mask[n] = 0;
  OpCase result;
  result.name = format("sinkhorn {}x{}x{}{}", groups, tokens, experts, is_masked ? " masked" : "");
  result.inputs = {
      {.shape = {groups * tokens, experts}, .low = -3, .high = 3, .is_differentiable = false}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    SinkhornOptions options{groups, 1e-30, 6, {}};
    if (is_masked) options.mask_N = x.on_device(Tensor::from<int32_t>({groups * tokens}, mask));
    return Var(sinkhorn(x[0].value(), options));
  };
  result.reference = [=](const OpValues& x) {
    return OpValues{
        normalised(x[0], static_cast<size_t>(experts), static_cast<size_t>(groups), mask, 6)};
  };
  return result;
}

TEST_CASE("sinkhorn scales rows and columns in turn", "[ops][router]") {
  check_ops({sinkhorn_case(1, 1, 1, false), sinkhorn_case(3, 40, 7, true),
             sinkhorn_case(2, 130, 40, false), sinkhorn_case(1, 20, 1300, true)});
}

TEST_CASE("sinkhorn stops by itself on a device too", "[ops][router]") {
  const Tensor logits = draw_logits(60, 5, 1, DType::f32);
  require_close(sinkhorn(logits.on(Device::emu), {}).on(Device::cpu), sinkhorn(logits, {}),
                {1e-6, 1e-4});
}

TEST_CASE("sinkhorn does not overflow, and ends where it does not converge", "[ops][router]") {
  SinkhornOptions options;
  options.max_iterations = 20;
  options.tolerance = 1e-30;
  for (double value : values_of(sinkhorn(draw_logits(40, 4, 200, DType::f32), options)))
    REQUIRE(std::isfinite(value));
  REQUIRE(sinkhorn(Tensor::zeros({0, 3}, DType::f32), {}).numel() == 0);
}

TEST_CASE("sinkhorn gives rows that are left out zeros, and the same bits with any threads",
          "[ops][router]") {
  const Tensor logits = draw_logits(3000, 12, 1, DType::f32);
  std::vector<int32_t> mask(3000, 1);
  for (size_t n = 0; n < mask.size(); n += 5) mask[n] = 0;
  SinkhornOptions options;
  options.mask_N = Tensor::from<int32_t>({3000}, mask);
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = sinkhorn(logits, options);
  set_num_threads(3);
  require_same_bits(sinkhorn(logits, options), one);
  set_num_threads(threads);
  for (int64_t i = 0; i < one.numel(); ++i)
    REQUIRE((one.data<float>()[i] == 0) == (i / 12 % 5 == 0));
  options.mask_N = Tensor::zeros({3000}, DType::i32);
  REQUIRE(values_of(sinkhorn(logits, options)) == std::vector<double>(36000, 0.0));
}

TEST_CASE("sinkhorn refuses groups that do not divide the tokens", "[ops][router]") {
  SinkhornOptions options;
  options.num_groups = 2;
  REQUIRE_THROWS_WITH(sinkhorn(Tensor::zeros({5, 3}, DType::f32), options),
                      Catch::Contains("2 groups of 5 tokens"));
}

TEST_CASE("sinkhorn speed", "[ops][router][.bench]") {
  time_op(sinkhorn_case(2, 4096, 128, false));
}

}  // namespace
}  // namespace stmoe::test
