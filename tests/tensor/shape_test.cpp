// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/shape.h"

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("shapes count elements and index from both ends", "[tensor][shape]") {
  const Shape shape{2, 3, 4};
  CHECK(shape.rank() == 3);
  CHECK(shape.numel() == 24);
  CHECK(shape[0] == 2);
  CHECK(shape[-1] == 4);
  CHECK(shape[-3] == 2);
  CHECK(shape.text() == "[2, 3, 4]");
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{}.text() == "[]");
  CHECK(Shape{3, 0}.numel() == 0);
}

TEST_CASE("shapes are equal when rank and dimensions are", "[tensor][shape]") {
  Shape grown{2};
  grown.append(3);
  CHECK(grown == Shape{2, 3});
  CHECK(!(grown == Shape{2, 3, 1}));
  CHECK(!(grown == Shape{3, 2}));
  grown[-1] = 5;
  CHECK(grown == Shape{2, 5});
}

TEST_CASE("a dimension that is not there is refused", "[tensor][shape]") {
  const Shape shape{2, 3};
  CHECK_THROWS_WITH(shape[2], Catch::Contains("dimension 2 of [2, 3]"));
  CHECK_THROWS_AS(shape[-3], BugError);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), BugError);
  Shape full{1, 1, 1, 1, 1, 1};
  CHECK_THROWS_AS(full.append(1), BugError);
}

}  // namespace stmoe
