// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_z_loss.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t tokens) {
  OpCase result;
  result.name = format("router_z_loss of {}", tokens);
  result.inputs = {{{tokens}, -2, 6}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [](const OpArguments& x) { return router_z_loss(x[0]); };
  result.reference = [](const OpValues& x) {
    double sum = 0;
    for (double lse : x[0]) sum += lse * lse;
    return OpValues{{sum / static_cast<double>(x[0].size())}};
  };
  return result;
}

TEST_CASE("router_z_loss is the mean square", "[ops][router]") {
  check_ops({make_case(1), make_case(6), make_case(1000)});
}

}  // namespace
}  // namespace stmoe::test
