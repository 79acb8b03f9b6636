// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/softmax_over_tokens.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t groups, int64_t tokens, int64_t experts, bool is_masked,
                 double range = 3) {
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  if (is_masked)
    for (size_t n = 0; n < mask.size(); n += 3) mask[n] = 0;
  const Tensor mask_N = is_masked ? Tensor::from<int32_t>({groups * tokens}, mask) : Tensor();
  OpCase result;
  result.name = format("softmax_over_tokens {}x{}x{}{}", groups, tokens, experts,
                       is_masked ? ", masked" : "");
  result.inputs = {{{groups * tokens, experts}, -range, range}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return softmax_over_tokens(x[0], groups, x.on_device(mask_N));
  };
  result.reference = [=](const OpValues& x) {
    std::vector<double> p(x[0].size());
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t e = 0; e < experts; ++e) {
        double total = 0;
        for (int64_t n = g * tokens; n < (g + 1) * tokens; ++n) {
          const auto i = static_cast<size_t>(n * experts + e);
          p[i] = mask[static_cast<size_t>(n)] ? std::exp(x[0][i]) : 0;
          total += p[i];
        }
        for (int64_t n = g * tokens; n < (g + 1) * tokens; ++n)
          if (total > 0) p[static_cast<size_t>(n * experts + e)] /= total;
      }
    return OpValues{p};
  };
  return result;
}

TEST_CASE("softmax_over_tokens sums to one down each column of a group", "[ops][router]") {
  check_ops({make_case(1, 1, 1, false), make_case(1, 7, 3, false), make_case(3, 5, 4, true),
             make_case(2, 40, 37, true), make_case(2, 6, 4, false, 80), make_case(1, 1, 2, true),
             make_case(1, 0, 4, false), make_case(2, 700, 5, true)});
}

TEST_CASE("softmax_over_tokens speed", "[ops][router][.bench]") {
  time_op(make_case(4, 2048, 128, false));
}

}  // namespace
}  // namespace stmoe::test
