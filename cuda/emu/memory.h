// SPDX-License-Identifier: Apache-2.0
// The emulated device's memory: addresses that are closed to the host, as a GPU's are, but while a
// kernel or a copy runs. A host read of a tensor on `emu` ends the process; an index that leaves a
// tensor is found by the address sanitizer, or without it, where it writes, when the tensor is
// released: the next launch or copy then throws BugError. New memory is filled with 0xff (NaN).
#pragma once

#include <cstddef>
#include <type_traits>

namespace stmoe::emu {

// Opens the memory while one lives; they nest.
class MemoryAccess {
 public:
  MemoryAccess();
  ~MemoryAccess();
  MemoryAccess(const MemoryAccess&) = delete;
  MemoryAccess& operator=(const MemoryAccess&) = delete;
};

bool is_device_memory(const void* address);

// Tests of the engine itself: while one lives, kernels take pointers to host memory too.
class HostPointers {
 public:
  HostPointers();
  ~HostPointers();
  HostPointers(const HostPointers&) = delete;
  HostPointers& operator=(const HostPointers&) = delete;
};

// Throws BugError for a pointer to host memory.
void check_pointer(const void* address);

template <class T>
void check_argument(const T& value) {
  if constexpr (std::is_pointer_v<T>) check_pointer(value);
}

}  // namespace stmoe::emu
