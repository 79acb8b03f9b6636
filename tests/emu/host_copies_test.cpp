// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/host_copies.h"

#include <catch2/catch.hpp>

#include "lib/base/error.h"

namespace stmoe {

TEST_CASE("copies for the host have the bytes of when they were asked for, on every device",
          "[emu][memory]") {
  for (const Device device : {Device::cpu, Device::emu}) {
    const Tensor x = Tensor::full({3}, DType::f32, 2, device),
                 none = Tensor::zeros({0}, DType::i64, device);
    const auto copies = start_host_copies({x, none});
    copies->wait_until_read();
    x.fill(5);
    CHECK(copies->wait(0).device() == Device::cpu);
    CHECK(copies->wait(0).data<float>()[2] == 2);
    CHECK(copies->wait(1).numel() == 0);
    CHECK(x.slice(0, 0, 1).item() == 5);
    CHECK_THROWS_AS(start_host_copies({Tensor::zeros({2, 3}, DType::f32, device).transpose(0, 1)}),
                    BugError);
  }
}

}  // namespace stmoe
