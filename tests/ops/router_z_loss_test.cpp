// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_z_loss.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

// Every third token is padding.
OpCase make_case(int64_t tokens, bool is_masked = false) {
  std::vector<int32_t> mask(static_cast<size_t>(tokens), 1);
  for (size_t n = 0; n < mask.size(); n += 3) mask[n] = is_masked ? 0 : 1;
  const Tensor mask_N = is_masked ? Tensor::from<int32_t>({tokens}, mask).clone() : Tensor();
  OpCase result;
  result.name = format("router_z_loss of {}{}", tokens, is_masked ? ", masked" : "");
  result.inputs = {{{tokens}, -2, 6}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) { return router_z_loss(x[0], x.on_device(mask_N)); };
  result.reference = [=](const OpValues& x) {
    double sum = 0, count = 0;
    for (size_t n = 0; n < mask.size(); ++n) {
      sum += mask[n] * x[0][n] * x[0][n];
      count += mask[n];
    }
    return OpValues{{count > 0 ? sum / count : 0.0}};
  };
  return result;
}

TEST_CASE("router_z_loss is the mean square, of all tokens or of those that are not masked",
          "[ops][router]") {
  check_ops({make_case(1), make_case(6), make_case(1000), make_case(1, true), make_case(6, true),
             make_case(1000, true), make_case(5000, true)});
}

}  // namespace
}  // namespace stmoe::test
