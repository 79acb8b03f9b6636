// SPDX-License-Identifier: Apache-2.0
// While one of these lives, every buffer lies between guard bytes and starts as NaN: a kernel that
// writes a byte too many, or reads what nobody wrote, is caught without a sanitizer.
#pragma once

namespace stmoe::test {

class GuardedHeap {
 public:
  GuardedHeap();
  ~GuardedHeap();
  GuardedHeap(const GuardedHeap&) = delete;
  GuardedHeap& operator=(const GuardedHeap&) = delete;
  // Fails the running test when a buffer released since this was made had its guard bytes
  // overwritten.
  void require_intact() const;
};

}  // namespace stmoe::test
