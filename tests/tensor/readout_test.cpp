// SPDX-License-Identifier: Apache-2.0
// Readouts of a device: tests/emu.
#include "lib/tensor/readout.h"

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("a readout gives numbers that the host has at once, and keeps nothing of them",
          "[tensor][readout]") {
  Readout readout;
  std::vector<double> seen;
  const auto note = [&](std::span<const double> values) {
    seen.insert(seen.end(), values.begin(), values.end());
  };
  const Tensor two = Tensor::from<float>({2}, {1.5f, -2.0f});
  readout.add(two, note);
  readout.add(Tensor::empty({0}, DType::f32), note);
  readout.add(Tensor::from<int64_t>({1, 2}, {7, 8}), note);
  readout.add(Tensor::from<double>({2, 2}, {1, 2, 3, 4}).transpose(0, 1), note);
  CHECK(seen == std::vector<double>{1.5, -2, 7, 8, 1, 3, 2, 4});
  CHECK(!two.is_shared());
  readout.collect();
  readout.read();
  CHECK(seen.size() == 8);
}

}  // namespace stmoe
