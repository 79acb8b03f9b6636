// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/buffer.h"

#include <atomic>
#include <cstdlib>

#include "lib/tensor/arena.h"

namespace stmoe {
namespace {

std::atomic<size_t> in_use{0}, peak{0};
std::atomic<HeapFunction> replacement{nullptr};

class HeapBuffer final : public Buffer {
 public:
  HeapBuffer(size_t bytes, Device device) : Buffer(nullptr, bytes, device) {
    // Exactly as many bytes as asked for, so that the address sanitizer sees one too many.
    void* memory = nullptr;
    if (::posix_memalign(&memory, 64, bytes ? bytes : 1) == 0)
      data_ = static_cast<std::byte*>(memory);
    if (!data_)
      throw UsageError(
          format("out of memory: {} MiB asked for; use a smaller model or batch", bytes >> 20));
    const size_t now = in_use += bytes_;
    size_t before = peak;
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
  }
  ~HeapBuffer() override {
    std::free(data_);
    in_use -= bytes_;
  }
};

}  // namespace

std::shared_ptr<Buffer> allocate_on_heap(size_t bytes, Device device) {
  STMOE_CHECK(is_host_memory(device), "allocate: device {} is not in this build", name_of(device));
  if (HeapFunction function = replacement) return function(bytes, device);
  return std::make_shared<HeapBuffer>(bytes, device);
}

std::shared_ptr<Buffer> allocate(size_t bytes, Device device) {
  if (StepArena* arena = StepArena::current()) return arena->allocate(bytes, device);
  return allocate_on_heap(bytes, device);
}

void replace_heap(HeapFunction function) { replacement = function; }

size_t heap_bytes_in_use() { return in_use; }
size_t heap_bytes_peak() { return peak; }

}  // namespace stmoe
