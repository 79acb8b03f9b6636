// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/expert_selection_loss.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t groups, int64_t tokens, int64_t experts, bool is_masked) {
  std::vector<int32_t> mask(static_cast<size_t>(groups * tokens), 1);
  if (is_masked)
    for (size_t n = 0; n < mask.size(); n += 3) mask[n] = 0;
  const Tensor mask_N = is_masked ? Tensor::from<int32_t>({groups * tokens}, mask) : Tensor();
  OpCase result;
  result.name = format("expert_selection_loss {}x{}x{}{}", groups, tokens, experts,
                       is_masked ? ", masked" : "");
  result.inputs = {{{groups * tokens, experts}, 0, 1}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) {
    return expert_selection_loss(x[0], groups, x.on_device(mask_N));
  };
  // As it is written in Mesh TensorFlow: T * mean over tokens of a^2 * T_real.
  result.reference = [=](const OpValues& x) {
    double mean = 0;
    for (int64_t g = 0; g < groups; ++g) {
      double real = 0, squares = 0;
      for (int64_t n = g * tokens; n < (g + 1) * tokens; ++n) {
        if (mask[static_cast<size_t>(n)] == 0) continue;
        double a = 0;
        for (int64_t e = 0; e < experts; ++e)
          a += x[0][static_cast<size_t>(n * experts + e)] / static_cast<double>(experts);
        real += 1;
        squares += a * a;
      }
      mean += squares * real / static_cast<double>(groups * tokens);
    }
    return OpValues{{mean * static_cast<double>(tokens)}};
  };
  return result;
}

TEST_CASE("expert_selection_loss is the mean square of what a token gets", "[ops][router]") {
  check_ops({make_case(1, 1, 1, false), make_case(1, 6, 3, false), make_case(3, 5, 4, true),
             make_case(2, 300, 128, true)});
}

TEST_CASE("expert_selection_loss speed", "[ops][router][.bench]") {
  time_op(make_case(4, 2048, 128, false));
}

}  // namespace
}  // namespace stmoe::test
