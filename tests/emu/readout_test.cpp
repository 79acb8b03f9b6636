// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/readout.h"

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("a readout brings a device's numbers of every type, in order", "[emu][readout]") {
  Readout readout;
  std::vector<double> seen;
  const auto note = [&](std::span<const double> values) {
    seen.insert(seen.end(), values.begin(), values.end());
  };
  const auto add = [&](const Tensor& values) { readout.add(values.on(Device::emu), note); };
  add(Tensor::from<float>({2}, {1.5f, -2.0f}));
  add(Tensor::empty({0}, DType::f32));
  add(Tensor::from<int64_t>({1, 2}, {7, 8}));
  readout.add(Tensor::from<double>({2, 2}, {1, 2, 3, 4}).on(Device::emu).transpose(0, 1), note);
  CHECK(seen.empty());
  readout.collect();
  CHECK_THROWS_AS(add(Tensor::zeros({1}, DType::f32)), BugError);
  readout.read();
  CHECK(seen == std::vector<double>{1.5, -2, 7, 8, 1, 3, 2, 4});
  readout.read();  // nothing is left
  CHECK(seen.size() == 8);
  add(Tensor::full({1}, DType::f32, 9.0));
  readout.read();
  CHECK(seen.back() == 9);
}

}  // namespace stmoe
