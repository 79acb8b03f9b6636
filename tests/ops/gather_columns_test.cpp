// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/gather_columns.h"

#include <catch2/catch.hpp>

#include "tests/ops/choices.h"
#include "tests/support/op_case.h"

namespace stmoe::test {
namespace {

OpCase make_case(int64_t rows, int64_t columns, int64_t k, uint64_t missing) {
  const Tensor index_NK = draw_choices(rows, k, columns, missing);
  OpCase result;
  result.name = format("gather_columns {}x{}, {} of them", rows, columns, k);
  result.inputs = {{{rows, columns}}};
  result.dtypes = {DType::f64, DType::f32};
  result.call = [=](const OpArguments& x) { return gather_columns(x[0], x.on_device(index_NK)); };
  result.reference = [=](const OpValues& x) {
    OpValues y(1);
    const auto index = ints(index_NK);
    for (size_t i = 0; i < index.size(); ++i) {
      const size_t row = i / static_cast<size_t>(k) * static_cast<size_t>(columns);
      y[0].push_back(index[i] < 0 ? 0.0 : x[0][row + static_cast<size_t>(index[i])]);
    }
    return y;
  };
  return result;
}

TEST_CASE("gather_columns takes one value per choice and gives it its gradient", "[ops][router]") {
  check_ops({make_case(1, 1, 1, 0), make_case(0, 2, 1, 0), make_case(9, 4, 1, 3),
             make_case(70, 8, 2, 5), make_case(20000, 3, 3, 4)});
}

TEST_CASE("gather_columns names a column that does not exist", "[ops][router]") {
  const Var x(Tensor::zeros({2, 3}, DType::f32));
  REQUIRE_THROWS_WITH(gather_columns(x, Tensor::from<int32_t>({2, 1}, {0, 3})),
                      Catch::Contains("column 3 of 3 in row 1"));
}

}  // namespace
}  // namespace stmoe::test
