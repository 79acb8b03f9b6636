// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "tests/config/example.h"

using namespace stmoe;

STMOE_REGISTER(Shape, "circle", {ConfigBox::of<CircleConfig>})
STMOE_REGISTER(Shape, "box", {ConfigBox::of<BoxConfig>})

TEST_CASE("a choice holds the config of its kind", "[config]") {
  Choice<Shape> shape{"box"};
  CHECK(shape.kind() == "box");
  CHECK(shape.config<BoxConfig>().width == 2);
  CHECK(shape.factory().make_config == &ConfigBox::of<BoxConfig>);
  CHECK_THROWS_AS(shape.config<CircleConfig>(), BugError);
  CHECK_THROWS_WITH(Choice<Shape>{"bx"},
                    "shape 'bx' is unknown; did you mean 'box'?; known: box, circle");
}

TEST_CASE("a copy of a choice is its own", "[config]") {
  Choice<Shape> first{"box"};
  Choice<Shape> second = first;
  second.config<BoxConfig>().width = 3;
  CHECK(first.config<BoxConfig>().width == 2);
  first = second;
  second.config<BoxConfig>().width = 1;
  CHECK(first.config<BoxConfig>().width == 3);
}
