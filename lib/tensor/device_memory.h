// SPDX-License-Identifier: Apache-2.0
// The memory of a device whose memory the host cannot read, registered by its runtime
// (cuda/runtime, cuda/emu). Work on a device happens in the order in which it was asked for; only
// to_host waits for it.
#pragma once

#include <cstddef>

#include "lib/tensor/device.h"

namespace stmoe {

struct DeviceMemoryKernels {
  static constexpr const char* kOp = "device memory";
  // Uninitialised, aligned to 256 bytes. Throws OutOfMemoryError.
  std::byte* (*allocate)(size_t bytes);
  // After all work that was asked for so far.
  void (*release)(std::byte* data, size_t bytes);
  // `from` may be used again when it returns.
  void (*to_device)(std::byte* to, const std::byte* from, size_t bytes);
  // The bytes are there when it returns.
  void (*to_host)(std::byte* to, const std::byte* from, size_t bytes);
  void (*zero)(std::byte* to, size_t bytes);
  // Until all work that was asked for is done.
  void (*wait)();
  // Of the whole device, in bytes; what of it is taken now, by this and other programs.
  int64_t (*total)();
  int64_t (*used)();
};

}  // namespace stmoe
