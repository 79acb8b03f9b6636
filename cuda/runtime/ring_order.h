// SPDX-License-Identifier: Apache-2.0
// Which bytes of a ring buffer are in use: pieces are taken in order and come back in order. Plain
// arithmetic; whoever uses it knows when a piece is done with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace stmoe::gpu {

class RingOrder {
 public:
  explicit RingOrder(size_t capacity) : capacity_(capacity) {}

  // The offset of so many contiguous bytes (at most the capacity), none while they are in use.
  std::optional<size_t> take(size_t bytes) {
    constexpr size_t kAlignment = 64;
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    size_t offset = head_ % capacity_, skipped = 0;
    if (offset + bytes > capacity_) skipped = capacity_ - offset, offset = 0;
    if (head_ + skipped + bytes > tail_ + capacity_) {
      // An empty ring begins anew.
      if (head_ != tail_ || bytes > capacity_) return std::nullopt;
      head_ = tail_ += capacity_ - head_ % capacity_;
      skipped = 0, offset = 0;
    }
    head_ += skipped + bytes;
    return offset;
  }
  // Everything taken so far; given to done_until once all of it is done with.
  uint64_t mark() const { return head_; }
  void done_until(uint64_t mark) { tail_ = mark; }
  size_t capacity() const { return capacity_; }

 private:
  size_t capacity_;
  uint64_t head_ = 0, tail_ = 0;
};

}  // namespace stmoe::gpu
