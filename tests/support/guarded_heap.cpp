// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guarded_heap.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include <catch2/catch.hpp>

#include "lib/tensor/buffer.h"

namespace stmoe::test {
namespace {

constexpr size_t kGuard = 64;
constexpr std::byte kPattern{0xA5};
constexpr int kPoison = 0xFF;  // a NaN in every floating type
std::atomic<int> overwritten{0};

class GuardedBuffer final : public Buffer {
 public:
  GuardedBuffer(size_t bytes, Device device) : Buffer(nullptr, bytes, device) {
    const size_t whole = (bytes + 63) / 64 * 64 + 2 * kGuard;
    block_ = static_cast<std::byte*>(std::aligned_alloc(64, whole));
    STMOE_CHECK(block_, "{} bytes", whole);
    data_ = block_ + kGuard;
    std::fill(block_, data_, kPattern);
    std::memset(data_, kPoison, bytes);
    std::fill(data_ + bytes, data_ + bytes + kGuard, kPattern);
  }
  ~GuardedBuffer() override {
    auto is_guard = [](std::byte value) { return value == kPattern; };
    if (!std::all_of(block_, data_, is_guard) ||
        !std::all_of(data_ + bytes_, data_ + bytes_ + kGuard, is_guard))
      ++overwritten;
    std::free(block_);
  }

 private:
  std::byte* block_;
};

}  // namespace

GuardedHeap::GuardedHeap() {
  overwritten = 0;
  replace_heap([](size_t bytes, Device device) -> std::shared_ptr<Buffer> {
    return std::make_shared<GuardedBuffer>(bytes, device);
  });
}

GuardedHeap::~GuardedHeap() { replace_heap(nullptr); }

void GuardedHeap::require_intact() const {
  INFO("buffers with overwritten guard bytes");
  REQUIRE(overwritten == 0);
}

}  // namespace stmoe::test
