// SPDX-License-Identifier: Apache-2.0
// A stack of its own to run a function on, left and entered again at will (x86-64). Switching tells
// the address sanitizer which stack is in use.
#pragma once

#include <cstddef>
#include <memory>

namespace stmoe::emu {

class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber begin with entry(argument) when it is next resumed; whatever it did before is
  // forgotten. `entry` must not throw.
  void start(void (*entry)(void*), void* argument);
  // Runs it until it calls suspend() or its entry returns.
  void resume();
  // Back to who resumed it; called on the fiber itself.
  void suspend();
  bool has_finished() const { return has_finished_; }

 private:
  static void run_entry(Fiber* fiber);
  friend void run_fiber_entry(void* fiber);

  static constexpr size_t kStackBytes = size_t{64} << 10;
  std::unique_ptr<std::byte[]> stack_;
  void* own_pointer_ = nullptr;      // of the stack, while the fiber does not run
  void* resumer_pointer_ = nullptr;  // of the other stack, while it does
  const void* resumer_stack_ = nullptr;
  size_t resumer_bytes_ = 0;
  void* own_fake_stack_ = nullptr;  // the address sanitizer's
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool has_finished_ = true;
};

}  // namespace stmoe::emu
