// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that go on while the thread computes (sm_80 and later; the
// emulation copies at once). Each thread waits for its own copies; a barrier of the block then
// shows them to all.
#pragma once

#include <cstring>

#include "cuda/device/device.h"

namespace stmoe::gpu {

#if defined(__CUDACC__)
// Sixteen bytes, both addresses multiples of 16; zeros unless `is_there`, when `from` must still be
// an address of the same tensor.
STMOE_DEVICE void copy_16_async(void* shared, const void* from, bool is_there) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = is_there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
// Closes a group of copies.
STMOE_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups but the newest kLeft.
template <int kLeft>
STMOE_DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}
#else
STMOE_DEVICE void copy_16_async(void* shared, const void* from, bool is_there) {
  if (is_there)
    std::memcpy(shared, from, 16);
  else
    std::memset(shared, 0, 16);
}
STMOE_DEVICE void commit_copies() {}
template <int kLeft>
STMOE_DEVICE void wait_for_copies() {}
#endif

}  // namespace stmoe::gpu
