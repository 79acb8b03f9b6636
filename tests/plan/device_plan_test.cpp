// SPDX-License-Identifier: Apache-2.0
// Plans for a GPU that is not here.
#include <catch2/catch.hpp>

#include "lib/ops/device_peak.h"
#include "lib/plan/plan.h"

namespace stmoe::test {

TEST_CASE("GPUs to plan for are known by name", "[plan][cuda]") {
  const Machine machine = named_machine("h200", DType::bf16);
  CHECK(machine.device == Device::cuda);
  CHECK(machine.memory_bytes == int64_t{139} << 30);
  CHECK(machine.speed.product_flops_per_second == 989e12);
  CHECK(named_machine("a100-40gb", DType::f32).speed.product_flops_per_second == 19.5e12);
  CHECK_THROWS_WITH(named_machine("h20", DType::f32), Catch::Contains("h200"));
}

TEST_CASE("a device's speed is measured by products and copies on it", "[plan][cuda]") {
  CHECK(measure_device_product_peak(DType::bf16, 0.01, Device::emu) > 0);
  CHECK(measure_device_memory_bandwidth(0.01, Device::emu) > 0);
}

}  // namespace stmoe::test
