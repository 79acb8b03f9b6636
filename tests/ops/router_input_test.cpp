// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_input.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t tokens, int64_t width, double jitter, bool is_masked) {
  RouterInputOptions options;
  options.jitter = jitter;
  options.key = RandomKey{5};
  options.first_token = 3;
  std::vector<int32_t> mask(static_cast<size_t>(tokens), 1);
  for (size_t n = 1; n < mask.size(); n += 2) mask[n] = is_masked ? 0 : 1;
  if (is_masked) options.mask_N = Tensor::from<int32_t>({tokens}, mask);
  OpCase result;
  result.name =
      format("router_input {}x{}, jitter {}{}", tokens, width, jitter, is_masked ? ", masked" : "");
  result.inputs = {{{tokens, width}}};
  result.call = [=](const OpArguments& x) {
    RouterInputOptions there = options;
    there.mask_N = x.on_device(options.mask_N);
    return router_input(x[0], there);
  };
  result.reference = [=](const OpValues& x) {
    OpValues y = x;
    for (size_t i = 0; i < y[0].size(); ++i) {
      const size_t index = i + 3 * static_cast<size_t>(width);
      y[0][i] *= mask[i / static_cast<size_t>(width)] *
                 (1 - jitter + 2 * jitter * random_uniform(options.key, index));
    }
    return y;
  };
  return result;
}

TEST_CASE("router_input widens, jitters by global index and zeroes masked tokens",
          "[ops][router]") {
  check_ops({make_case(1, 1, 0.01, false), make_case(0, 3, 0.01, false), make_case(5, 7, 0, false),
             make_case(6, 9, 0, true), make_case(7, 300, 0.01, true),
             make_case(200, 515, 0.5, false), make_case(9, 64, 0.01, true),
             make_case(5, 12, 0.1, false)});
}

TEST_CASE("router_input's result is f32 for bf16 and its noise lies in its interval",
          "[ops][router]") {
  RouterInputOptions options;
  options.jitter = 0.01;
  const Tensor ones = Tensor::full({500, 64}, DType::bf16, 1.0);
  const Tensor y = router_input(Var(ones), options).value();
  REQUIRE(y.dtype() == DType::f32);
  double sum = 0, low = 2, high = 0;
  for (float value : y.span<float>()) {
    sum += value;
    low = std::min<double>(low, value);
    high = std::max<double>(high, value);
  }
  REQUIRE(low >= 0.99f);
  REQUIRE(low < 0.9901);
  REQUIRE(high <= 1.01f);
  REQUIRE(high > 1.0099);
  // The mean of 32000 draws: deviation 0.01 / sqrt(3) / sqrt(32000) = 3.2e-5; five of them.
  REQUIRE(std::abs(sum / 32000 - 1) < 1.6e-4);
}

TEST_CASE("router_input of a part of the batch draws that part's noise", "[ops][router]") {
  RouterInputOptions options;
  options.jitter = 0.1;
  const Tensor ones = Tensor::full({8, 5}, DType::f32, 1.0);
  const Tensor whole = router_input(Var(ones), options).value();
  options.first_token = 6;
  const Tensor part = router_input(Var(ones.slice(0, 6, 8)), options).value();
  require_same_bits(part, whole.slice(0, 6, 8));
}

TEST_CASE("router_input leaves f32 without noise or mask as it is", "[ops][router]") {
  const Var x(Tensor::zeros({2, 3}, DType::f32));
  REQUIRE(router_input(x, {}).value().raw() == x.value().raw());
}

TEST_CASE("time of router_input", "[.bench]") {
  time_op(make_case(4096, 512, 0, false));
  time_op(make_case(4096, 512, 0.01, false));
}

}  // namespace
}  // namespace stmoe::test
