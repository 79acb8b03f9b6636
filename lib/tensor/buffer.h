// SPDX-License-Identifier: Apache-2.0
// Memory that tensors view. Allocation goes to the current step arena (arena.h) when one is active,
// else to the heap.
#pragma once

#include <cstddef>
#include <memory>

#include "lib/tensor/device.h"

namespace stmoe {

// 64-byte aligned memory on one device (256 on cuda), released when the last owner goes.
class Buffer {
 public:
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 protected:
  Buffer(std::byte* data, size_t bytes, Device device)
      : data_(data), bytes_(bytes), device_(device) {}
  std::byte* data_;
  size_t bytes_;
  Device device_;
};

// The system has no room for what is asked for.
struct OutOfMemoryError : UsageError {
  explicit OutOfMemoryError(const std::string& text) : UsageError(text) {}
};

// Uninitialised memory; on Device::plan addresses without memory, which read as zeros. Throws
// OutOfMemoryError with the size asked for.
std::shared_ptr<Buffer> allocate(size_t bytes, Device device);

// The heap, whatever arena is active: for what outlives a step.
std::shared_ptr<Buffer> allocate_on_heap(size_t bytes, Device device);

// Tests only: replaces what allocate_on_heap does, as with guarded buffers; null restores the heap.
using HeapFunction = std::shared_ptr<Buffer> (*)(size_t bytes, Device device);
void replace_heap(HeapFunction function);

// Bytes in heap buffers now, and the most there ever were (arena blocks are counted by the arena).
size_t heap_bytes_in_use();
size_t heap_bytes_peak();
// In buffers and arena blocks on emu and cuda.
size_t device_bytes_in_use();

}  // namespace stmoe
