// SPDX-License-Identifier: Apache-2.0
// The stream that all work of this process on its GPU is asked for on, in order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stmoe::gpu {

// Starts a kernel; `arguments` are the addresses of its arguments. Throws what check_cuda throws.
void launch_on_stream(const void* kernel, int64_t grid_x, int64_t grid_y, int threads,
                      size_t shared_bytes, void** arguments);

}  // namespace stmoe::gpu
