// SPDX-License-Identifier: Apache-2.0
// How fast a GPU multiplies matrices and moves memory: the yardsticks of benchmarks there.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

// FLOP/s of square products of random values with f32 sums, the best of the runs done in `seconds`;
// 8192 rows in bf16, 4096 else, fewer on the emulated device.
double measure_device_product_peak(DType dtype, double seconds, Device device);
// Bytes per second, read and written, of a copy of 1 GiB (emulated: 64 KiB).
double measure_device_memory_bandwidth(double seconds, Device device);

}  // namespace stmoe
