// SPDX-License-Identifier: Apache-2.0
// Whether someone asked this process to finish its step, save and end. Set from signal handlers,
// read by loops.
#pragma once

#include <atomic>

namespace stmoe {

class StopRequest {
 public:
  // Safe in a signal handler.
  void request() { requested_.store(true, std::memory_order_relaxed); }
  bool requested() const { return requested_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> requested_{false};
  static_assert(std::atomic<bool>::is_always_lock_free);
};

}  // namespace stmoe
