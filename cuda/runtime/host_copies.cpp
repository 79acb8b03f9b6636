// SPDX-License-Identifier: Apache-2.0
// Copies to the host on a stream of their own, which begins where the work asked for so far ends. A
// thread asks for parts into pinned buffers, a few ahead, and copies on those that have come.
#include "lib/tensor/host_copies.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "cuda/runtime/event.h"
#include "cuda/runtime/gpu.h"
#include "cuda/runtime/staging.h"
#include "lib/base/error.h"
#include "lib/tensor/step_graph.h"

namespace stmoe::gpu {
namespace {

constexpr size_t kPartBytes = size_t{32} << 20, kSlots = 4;

// One thread copies at a time; kept for the next checkpoint, as pinning takes long.
struct Slots {
  std::mutex mutex;
  PinnedBuffer memory{kSlots * kPartBytes};
  Event arrived[kSlots];

  std::byte* data(size_t part) const { return memory.data() + part % kSlots * kPartBytes; }
};

Slots& slots() {
  static auto* const slots = new Slots;
  return *slots;
}

struct Part {
  const std::byte* from;
  std::byte* to;
  size_t bytes;
  size_t tensors_done;  // when it has come
};

class BackgroundCopies final : public HostCopies {
 public:
  explicit BackgroundCopies(const std::vector<Tensor>& tensors) : sources_(tensors) {
    if (is_recording()) throw HostReadError();
    for (const Tensor& source : sources_) {
      copies_.push_back(Tensor::empty_on_heap(source.shape(), source.dtype()));
      add_parts(source, copies_.back());
    }
    Event begin;
    begin.record(stream());
    begin.hold(copy_stream());
    static_cast<void>(slots());  // an error in making them is told here
    thread_ = std::thread([this] { run(); });
  }
  ~BackgroundCopies() override { thread_.join(); }

  const Tensor& wait(size_t i) override {
    STMOE_CHECK(i < copies_.size(), "host copies: {} of {}", i, copies_.size());
    wait_for(i + 1);
    return copies_[i];
  }
  void wait_until_read() override { wait_for(copies_.size()); }

 private:
  void add_parts(const Tensor& source, const Tensor& copy) {
    for (size_t at = 0; at < source.bytes(); at += kPartBytes)
      parts_.push_back({source.raw() + at, copy.raw() + at,
                        std::min(kPartBytes, source.bytes() - at), copies_.size() - 1});
    // What is done when the last part has come; a tensor without elements comes with the one
    // before.
    if (!parts_.empty()) parts_.back().tensors_done = copies_.size();
  }

  void run() noexcept {
    try {
      copy_all();
      announce(copies_.size(), nullptr);
    } catch (...) {
      announce(copies_.size(), std::current_exception());
    }
  }

  void copy_all() {
    Slots& pinned = slots();
    const std::scoped_lock lock(pinned.mutex);
    for (size_t i = 0; i < parts_.size() + kSlots; ++i) {
      // The slot's part before is copied on first.
      if (i >= kSlots) land(pinned, i - kSlots);
      if (i >= parts_.size()) continue;
      STMOE_CHECK_CUDA(cudaMemcpyAsync(pinned.data(i), parts_[i].from, parts_[i].bytes,
                                       cudaMemcpyDeviceToHost, copy_stream()));
      pinned.arrived[i % kSlots].record(copy_stream());
    }
  }

  void land(Slots& pinned, size_t i) {
    if (i >= parts_.size()) return;
    pinned.arrived[i % kSlots].wait();
    std::memcpy(parts_[i].to, pinned.data(i), parts_[i].bytes);
    announce(parts_[i].tensors_done, nullptr);
  }

  void announce(size_t come, std::exception_ptr error) {
    {
      const std::scoped_lock lock(mutex_);
      come_ = std::max(come_, come);
      if (error) error_ = error;
    }
    changed_.notify_all();
  }

  void wait_for(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return come_ >= count; });
    if (error_) std::rethrow_exception(error_);
  }

  std::vector<Tensor> sources_, copies_;
  std::vector<Part> parts_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t come_ = 0;
  std::exception_ptr error_;
  std::thread thread_;
};

std::unique_ptr<HostCopies> start(const std::vector<Tensor>& tensors) {
  return std::make_unique<BackgroundCopies>(tensors);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(HostCopiesKernels, cuda, {gpu::start})

}  // namespace stmoe
