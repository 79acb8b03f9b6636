// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/reshape.h"

#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace stmoe {

TEST_CASE("reshape keeps the elements in row-major order", "[ops][reshape]") {
  auto to = [](Shape shape) {
    return [shape](const test::OpArguments& x) { return test::OpResults(reshape(x[0], shape)); };
  };
  auto same = [](const test::OpValues& x) { return x; };
  test::check_ops({{"reshape split", {{{3, 8}}}, to({3, 2, 4}), same},
                   {"reshape with a computed dimension", {{{2, 3, 4}}}, to({-1, 4}), same},
                   {"reshape of one element", {{{1}}}, to({1, 1, 1}), same}});
}

}  // namespace stmoe
