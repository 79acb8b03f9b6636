// SPDX-License-Identifier: Apache-2.0
// How fast this machine's memory is: the yardstick of ops that compute little.
#pragma once

#include "lib/tensor/device.h"

namespace stmoe {

// Bytes per second, read and written, of all compute threads together in a triad a = b + s c over
// arrays of 64 MiB each, in ordinary stores, as the ops write (what the processor reads of a line
// before it writes it is not counted). The best of the passes done in `seconds`. An op whose
// tensors are still in a cache can be faster.
// On a GPU: measure_device_memory_bandwidth.
double measure_memory_bandwidth(double seconds = 0.3, Device device = Device::cpu);

}  // namespace stmoe
