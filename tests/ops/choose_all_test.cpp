// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/choose_all.h"

#include <catch2/catch.hpp>

#include "tests/ops/choices.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("choose_all sends every token that is not masked to every expert", "[ops][router]") {
  const Tensor mask = Tensor::from<int32_t>({3}, {1, 0, 1});
  for (Device device : {Device::cpu, Device::emu}) {
    const AllChosen all = choose_all(2, 3, device);
    REQUIRE(ints_on_host(all.expert_NE) == Ints{0, 1, 2, 0, 1, 2});
    REQUIRE(ints_on_host(all.slot_NE) == Ints{0, 0, 0, 1, 1, 1});
    const AllChosen real = choose_all(3, 2, device, mask.on(device));
    REQUIRE(ints_on_host(real.expert_NE) == Ints{0, 1, -1, -1, 0, 1});
    REQUIRE(ints_on_host(real.slot_NE) == Ints{0, 0, -1, -1, 2, 2});
    REQUIRE(choose_all(0, 2, device).expert_NE.numel() == 0);
  }
}

TEST_CASE("inverse_counts is one over the experts that took the token", "[ops][router]") {
  const Tensor expert = Tensor::from<int32_t>({3, 4}, {0, 1, -1, 3, -1, -1, -1, -1, -1, 1, 2, 3});
  const Tensor many = draw_choices(70, 37, 37, 2);
  for (DType dtype : {DType::f32, DType::f64}) {
    REQUIRE(values_of(inverse_counts(expert, DType::f64)) ==
            std::vector<double>{1.0 / 3, 1.0 / 3, 1.0 / 3, 1.0 / 3, 1, 1, 1, 1, 1.0 / 3, 1.0 / 3,
                                1.0 / 3, 1.0 / 3});
    for (const Tensor& choices : {expert, many})
      require_same_bits(inverse_counts(choices.on(Device::emu), dtype).on(Device::cpu),
                        inverse_counts(choices, dtype));
  }
}

}  // namespace
}  // namespace stmoe::test
