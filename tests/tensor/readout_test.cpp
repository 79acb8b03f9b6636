// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/readout.h"

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("a readout brings numbers of every type, in order", "[tensor][readout]") {
  Readout readout;
  std::vector<double> seen;
  const auto note = [&](std::span<const double> values) {
    seen.insert(seen.end(), values.begin(), values.end());
  };
  readout.add(Tensor::from<float>({2}, {1.5f, -2.0f}), note);
  readout.add(Tensor::empty({0}, DType::f32), note);
  readout.add(Tensor::from<int64_t>({1, 2}, {7, 8}), note);
  readout.add(Tensor::from<double>({2, 2}, {1, 2, 3, 4}).transpose(0, 1), note);
  CHECK(seen.empty());
  readout.collect();
  CHECK_THROWS_AS(readout.add(Tensor::zeros({1}, DType::f32), note), BugError);
  readout.read();
  CHECK(seen == std::vector<double>{1.5, -2, 7, 8, 1, 3, 2, 4});
  readout.read();  // nothing is left
  CHECK(seen.size() == 8);
  readout.add(Tensor::full({1}, DType::f32, 9.0), note);
  readout.read();
  CHECK(seen.back() == 9);
}

}  // namespace stmoe
