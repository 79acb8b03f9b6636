// SPDX-License-Identifier: Apache-2.0
#include "cuda/emu/fiber.h"

#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
// Without the sanitizer these do nothing.
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

// Saves what a called function must keep (System V ABI) on the present stack, its pointer in *save,
// and goes on where the stack `to` was left. The last word of a new stack is the address to go to.
extern "C" void stmoe_switch_stack(void** save, void* to);
asm(R"(
.text
.globl stmoe_switch_stack
.hidden stmoe_switch_stack
.type stmoe_switch_stack, @function
stmoe_switch_stack:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size stmoe_switch_stack, .-stmoe_switch_stack
)");

namespace stmoe::emu {
namespace {

constexpr size_t kSavedRegisters = 6;

// The fiber that is being entered for the first time: its entry has no argument of its own.
thread_local Fiber* starting = nullptr;

}  // namespace

void run_fiber_entry(void* fiber) { Fiber::run_entry(static_cast<Fiber*>(fiber)); }

extern "C" [[noreturn]] void stmoe_enter_fiber() {
  run_fiber_entry(starting);
  std::abort();  // a finished fiber is never resumed
}

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  has_finished_ = false;
  own_fake_stack_ = nullptr;
  // Frames of a kernel that was left in the middle, by an error, have left their marks.
  ASAN_UNPOISON_MEMORY_REGION(stack_.get(), kStackBytes);
  // At a function's first instruction the pointer is 8 below a multiple of 16.
  auto top = reinterpret_cast<uintptr_t>(stack_.get() + kStackBytes) & ~uintptr_t{15};
  auto* words = reinterpret_cast<void**>(top) - 2;
  *words = reinterpret_cast<void*>(&stmoe_enter_fiber);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--words = nullptr;
  own_pointer_ = words;
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  starting = this;
  __sanitizer_start_switch_fiber(&fake_stack, stack_.get(), kStackBytes);
  stmoe_switch_stack(&resumer_pointer_, own_pointer_);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void Fiber::suspend() {
  __sanitizer_start_switch_fiber(has_finished_ ? nullptr : &own_fake_stack_, resumer_stack_,
                                 resumer_bytes_);
  stmoe_switch_stack(&own_pointer_, resumer_pointer_);
  __sanitizer_finish_switch_fiber(own_fake_stack_, &resumer_stack_, &resumer_bytes_);
}

void Fiber::run_entry(Fiber* fiber) {
  __sanitizer_finish_switch_fiber(nullptr, &fiber->resumer_stack_, &fiber->resumer_bytes_);
  fiber->entry_(fiber->argument_);
  fiber->has_finished_ = true;
  fiber->suspend();
}

}  // namespace stmoe::emu
