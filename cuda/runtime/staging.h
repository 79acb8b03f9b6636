// SPDX-License-Identifier: Apache-2.0
// Pinned host memory between the host's tensors and the GPU. Copies to the GPU leave from a ring
// without waiting for it; copies to the host come in two halves, the next on its way while the one
// that has come is copied on.
#pragma once

#include <cstddef>

namespace stmoe::gpu {

void copy_to_gpu(std::byte* to, const std::byte* from, size_t bytes);
void copy_to_host(std::byte* to, const std::byte* from, size_t bytes);
// After a recorded step was started: what its copies read is done with when it has run.
void note_recorded_copies();

// Pinned memory; throws OutOfMemoryError.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_;
};

}  // namespace stmoe::gpu
