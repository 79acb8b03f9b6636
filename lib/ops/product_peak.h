// SPDX-License-Identifier: Apache-2.0
// What this processor could multiply at most: the yardstick of benchmarks.
#pragma once

#include "lib/tensor/device.h"
#include "lib/tensor/dtype.h"

namespace stmoe {

// FLOP/s of all compute threads together in a loop of multiply-adds on registers (one multiply-add
// is 2 FLOP), with the widest vector instructions that this processor has for the type: AVX-512,
// AVX2 with FMA, or what the compiler makes of plain loops; for bf16 the instruction that
// multiplies bf16 pairs into f32 sums, else the f32 loop. Nothing that reads its operands from
// memory can be faster (matrix units such as AMX are not counted). All threads run at once for
// `seconds`; each counts its fastest millisecond, so that other processes do not lower the figure.
// On a GPU: measure_device_product_peak.
double measure_product_peak(DType dtype, double seconds = 0.2, Device device = Device::cpu);

}  // namespace stmoe
