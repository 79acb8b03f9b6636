// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/staging.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>

#include "cuda/runtime/event.h"
#include "cuda/runtime/gpu.h"
#include "cuda/runtime/ring_order.h"
#include "lib/base/error.h"
#include "lib/tensor/buffer.h"
#include "lib/tensor/step_graph.h"

namespace stmoe::gpu {
namespace {

// A batch of the largest recipes is below 1 MiB; a checkpoint goes through in parts.
constexpr size_t kRingBytes = size_t{64} << 20, kPartBytes = size_t{16} << 20;

class UploadRing {
 public:
  static UploadRing& instance() {
    static auto* const ring = new UploadRing;  // never destroyed: as the streams
    return *ring;
  }

  void copy(std::byte* to, const std::byte* from, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    for (size_t at = 0; at < bytes; at += kPartBytes)
      copy_part(to + at, from + at, std::min(kPartBytes, bytes - at));
  }

  void fence() {
    const std::scoped_lock lock(mutex_);
    add_fence();
  }

 private:
  struct Fence {
    Event event;
    uint64_t mark;
  };

  void copy_part(std::byte* to, const std::byte* from, size_t bytes) {
    std::byte* pinned = buffer_.data() + take(bytes);
    std::memcpy(pinned, from, bytes);
    STMOE_CHECK_CUDA(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, stream()));
    if (!is_recording()) add_fence();
  }

  size_t take(size_t bytes) {
    for (;;) {
      if (const auto offset = order_.take(bytes)) return *offset;
      STMOE_CHECK(!fences_.empty(),
                  "step graph: a recorded step copies more than {} MiB to the device",
                  kRingBytes >> 20);
      fences_.front().event.wait();
      order_.done_until(fences_.front().mark);
      spare_.push_back(std::move(fences_.front().event));
      fences_.pop_front();
    }
  }

  void add_fence() {
    if (spare_.empty()) spare_.emplace_back();
    Event event = std::move(spare_.back());
    spare_.pop_back();
    event.record(stream());
    fences_.push_back({std::move(event), order_.mark()});
  }

  std::mutex mutex_;
  PinnedBuffer buffer_{kRingBytes};
  RingOrder order_{kRingBytes};
  std::deque<Fence> fences_;
  std::deque<Event> spare_;
};

// Two parts of a copy to the host, under way or come.
class Landing {
 public:
  static Landing& instance() {
    static auto* const landing = new Landing;
    return *landing;
  }

  void copy(std::byte* to, const std::byte* from, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    const size_t parts = (bytes + kPartBytes - 1) / kPartBytes;
    const auto size_of_part = [&](size_t part) {
      return std::min(kPartBytes, bytes - part * kPartBytes);
    };
    for (size_t part = 0; part <= parts; ++part) {
      if (part < parts) {
        STMOE_CHECK_CUDA(cudaMemcpyAsync(half(part), from + part * kPartBytes, size_of_part(part),
                                         cudaMemcpyDeviceToHost, stream()));
        arrived_[part % 2].record(stream());
      }
      if (part == 0) continue;
      arrived_[(part - 1) % 2].wait();
      std::memcpy(to + (part - 1) * kPartBytes, half(part - 1), size_of_part(part - 1));
    }
  }

 private:
  std::byte* half(size_t part) const { return buffer_.data() + part % 2 * kPartBytes; }

  std::mutex mutex_;
  PinnedBuffer buffer_{2 * kPartBytes};
  Event arrived_[2];
};

}  // namespace

PinnedBuffer::PinnedBuffer(size_t bytes) : bytes_(bytes) {
  static_cast<void>(stream());  // throws where there is no device
  void* data = nullptr;
  const cudaError_t code = cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocDefault);
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw OutOfMemoryError(
        format("out of memory: the system has no {} MiB that the GPU can read directly (pinned "
               "memory); raise the limit of locked memory (ulimit -l)",
               bytes >> 20));
  }
  check_cuda(code, "cudaHostAlloc(&data, bytes, cudaHostAllocDefault)");
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() { STMOE_LOG_CUDA(cudaFreeHost(data_)); }

void copy_to_gpu(std::byte* to, const std::byte* from, size_t bytes) {
  UploadRing::instance().copy(to, from, bytes);
}

void copy_to_host(std::byte* to, const std::byte* from, size_t bytes) {
  if (is_recording()) throw HostReadError();
  Landing::instance().copy(to, from, bytes);
}

void note_recorded_copies() { UploadRing::instance().fence(); }

}  // namespace stmoe::gpu
