// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/buffer.h"

#include <atomic>
#include <cstdlib>

#include "lib/tensor/arena.h"
#include "lib/tensor/device_memory.h"
#include "lib/tensor/pages.h"

namespace stmoe {
namespace {

std::atomic<size_t> in_use{0}, peak{0}, device_in_use{0};
std::atomic<HeapFunction> replacement{nullptr};

void count_allocation(size_t bytes) {
  const size_t now = in_use += bytes;
  size_t before = peak;
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

[[noreturn]] void throw_no_room(size_t bytes) {
  throw OutOfMemoryError(
      format("out of memory: {} MiB asked for; use a smaller model or batch", bytes >> 20));
}

class HeapBuffer final : public Buffer {
 public:
  HeapBuffer(size_t bytes, Device device) : Buffer(nullptr, bytes, device) {
    // Exactly as many bytes as asked for, so that the address sanitizer sees one too many.
    void* memory = nullptr;
    if (::posix_memalign(&memory, 64, bytes ? bytes : 1) == 0)
      data_ = static_cast<std::byte*>(memory);
    if (!data_) throw_no_room(bytes);
    count_allocation(bytes_);
  }
  ~HeapBuffer() override {
    std::free(data_);
    in_use -= bytes_;
  }
};

// Pages of its own, which go back to the system at once: what the first, unplanned step of a phase
// frees would otherwise stay with the C library in pieces and count for the process's peak.
class PagesBuffer final : public Buffer {
 public:
  PagesBuffer(size_t bytes, Device device) : Buffer(nullptr, bytes, device), pages_(bytes) {
    if (!pages_.data()) throw_no_room(bytes);
    data_ = pages_.data();
    count_allocation(bytes_);
  }
  ~PagesBuffer() override { in_use -= bytes_; }

 private:
  Pages pages_;
};

class PlannedBuffer final : public Buffer {
 public:
  PlannedBuffer(size_t bytes, Device device)
      : Buffer(nullptr, bytes, device),
        pages_(Pages::untouched(bytes, /*is_writable=*/device != Device::plan)) {
    data_ = pages_.data();
    if (!data_)
      throw UsageError(format(
          "plan: the system has no {} MiB of addresses; a limit on virtual memory (ulimit -v) must "
          "be above what is planned",
          bytes >> 20));
  }

 private:
  Pages pages_;
};

class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(size_t bytes, Device device)
      : Buffer(kernels<DeviceMemoryKernels>(device).allocate(bytes), bytes, device) {
    device_in_use += bytes_;
  }
  ~DeviceBuffer() override {
    kernels<DeviceMemoryKernels>(device_).release(data_, bytes_);
    device_in_use -= bytes_;
  }
};

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kSmallestInPages = SIZE_MAX;
#else
constexpr size_t kSmallestInPages = size_t{256} << 10;
#endif

std::shared_ptr<Buffer> new_buffer(size_t bytes, Device device, size_t smallest_in_pages) {
  if (device == Device::plan || is_planning())
    return std::make_shared<PlannedBuffer>(bytes, device);
  if (!is_host_memory(device)) return std::make_shared<DeviceBuffer>(bytes, device);
  if (HeapFunction function = replacement) return function(bytes, device);
  if (bytes >= smallest_in_pages) return std::make_shared<PagesBuffer>(bytes, device);
  return std::make_shared<HeapBuffer>(bytes, device);
}

}  // namespace

std::shared_ptr<Buffer> allocate_on_heap(size_t bytes, Device device) {
  return new_buffer(bytes, device, kSmallestInPages);
}

std::shared_ptr<Buffer> allocate(size_t bytes, Device device) {
  if (StepArena* arena = StepArena::current())
    if (auto buffer = arena->allocate(bytes, device)) return buffer;
  // Without an arena (generation, tests) memory is asked for again and again: the C library keeps
  // what is freed.
  return new_buffer(bytes, device, SIZE_MAX);
}

void replace_heap(HeapFunction function) { replacement = function; }

size_t heap_bytes_in_use() { return in_use; }
size_t heap_bytes_peak() { return peak; }
size_t device_bytes_in_use() { return device_in_use; }

}  // namespace stmoe
