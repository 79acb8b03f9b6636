// SPDX-License-Identifier: Apache-2.0
// A kernel that does nothing: whether this program has machine code for a device.
#pragma once

namespace stmoe::gpu {

const void* probe_kernel();

}  // namespace stmoe::gpu
