// SPDX-License-Identifier: Apache-2.0
#include "cuda/emu/engine.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/emu/fiber.h"
#include "cuda/emu/memory.h"
#include "lib/base/error.h"
#include "lib/base/format.h"
#include "lib/base/random.h"

namespace stmoe::emu {
namespace {

std::string place(const std::source_location& where) {
  return format("{}:{}", where.file_name(), where.line());
}

// Exactly as many bytes as asked for, so that the address sanitizer sees one too many.
struct SharedMemory {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
  void poison() const {
    if (size > 0) std::memset(bytes.get(), 0xff, size);
  }
};

enum class Waiting : uint8_t { nothing, block, warp };

struct Thread {
  Coordinates coordinates;
  Waiting waiting = Waiting::nothing;
  std::source_location where;
  uint64_t value = 0;  // brought to a warp's exchange
  void* mine = nullptr;
  void (*together)(void* const* lanes) = nullptr;  // null: an exchange of values
};

// Of a template's instances each has its own: the function's name tells them apart.
using Declaration = std::tuple<const char*, const char*, unsigned, unsigned>;

// A thread's fibers, kept from launch to launch.
std::vector<std::unique_ptr<Fiber>>& fiber_pool(size_t count) {
  static thread_local std::vector<std::unique_ptr<Fiber>> pool;
  while (pool.size() < count) pool.push_back(std::make_unique<Fiber>());
  return pool;
}

class Block {
 public:
  Block(const LaunchShape& shape, const Body& body);
  void run(Index3 index, bool is_backwards);

  Thread& current() { return threads_[current_]; }
  size_t current_index() const { return current_; }
  void wait(Waiting kind, const std::source_location& where) {
    current().waiting = kind;
    current().where = where;
    fibers_[current_]->suspend();
  }
  std::array<uint64_t, kWarpSize>& exchanged() { return exchanged_[current_ / kWarpSize]; }
  SharedMemory& dynamic() { return dynamic_; }
  void* static_memory(size_t bytes, const std::source_location& where);

 private:
  static void enter(void* block);
  void poison();
  void resume(size_t thread);
  bool release_warp(size_t warp);
  bool release_block();
  [[noreturn]] void report_deadlock() const;

  const LaunchShape& shape_;
  const Body& body_;
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Fiber>>& fibers_;
  std::vector<std::array<uint64_t, kWarpSize>> exchanged_;  // by warp
  SharedMemory dynamic_;
  std::map<Declaration, SharedMemory> static_;
  size_t current_ = 0;
  std::exception_ptr error_;
};

thread_local Block* running = nullptr;

Block& block() {
  STMOE_CHECK(running != nullptr, "emulation: called outside a kernel");
  return *running;
}

Index3 index_of(size_t i, Index3 size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

size_t volume(Index3 size) { return size_t{size.x} * size.y * size.z; }

Block::Block(const LaunchShape& shape, const Body& body)
    : shape_(shape),
      body_(body),
      threads_(volume(shape.block)),
      fibers_(fiber_pool(threads_.size())) {
  STMOE_CHECK(
      threads_.size() >= kWarpSize && threads_.size() % kWarpSize == 0 && threads_.size() <= 1024,
      "launch: {} threads in a block, expected a multiple of {} up to 1024", threads_.size(),
      kWarpSize);
  exchanged_.resize(threads_.size() / kWarpSize);
  dynamic_ = {std::make_unique<std::byte[]>(shape.shared_bytes), shape.shared_bytes};
}

void Block::enter(void* self) {
  Block& b = *static_cast<Block*>(self);
  try {
    b.body_();
  } catch (...) {
    if (!b.error_) b.error_ = std::current_exception();
  }
}

void Block::poison() {
  dynamic_.poison();
  for (auto& [declaration, memory] : static_) memory.poison();
}

void Block::resume(size_t thread) {
  current_ = thread;
  fibers_[thread]->resume();
  if (error_) std::rethrow_exception(error_);
}

// Lets the lanes of a warp go on when all of them have come to the same exchange.
bool Block::release_warp(size_t warp) {
  Thread* lanes = &threads_[warp * kWarpSize];
  for (size_t lane = 0; lane < kWarpSize; ++lane)
    if (lanes[lane].waiting != Waiting::warp || lanes[lane].where.line() != lanes[0].where.line())
      return false;
  void* brought[kWarpSize];
  for (size_t lane = 0; lane < kWarpSize; ++lane) {
    exchanged_[warp][lane] = lanes[lane].value;
    brought[lane] = lanes[lane].mine;
    lanes[lane].waiting = Waiting::nothing;
  }
  if (lanes[0].together) lanes[0].together(brought);
  return true;
}

bool Block::release_block() {
  const auto waits_here = [&](const Thread& thread) {
    return thread.waiting == Waiting::block && thread.where.line() == threads_[0].where.line();
  };
  if (!std::ranges::all_of(threads_, waits_here)) return false;
  for (Thread& thread : threads_) thread.waiting = Waiting::nothing;
  return true;
}

void Block::report_deadlock() const {
  std::map<std::string, size_t> states;
  for (size_t i = 0; i < threads_.size(); ++i) {
    const Thread& thread = threads_[i];
    if (fibers_[i]->has_finished())
      ++states["have left the kernel"];
    else
      ++states[format("wait at {} ({})", place(thread.where),
                      thread.waiting == Waiting::block ? "for the block" : "for their warp")];
  }
  std::string text;
  for (const auto& [state, count] : states)
    text += format("{}{} threads {}", text.empty() ? "" : ", ", count, state);
  throw BugError(format("kernel: threads wait for others that never come: {}", text));
}

void Block::run(Index3 index, bool is_backwards) {
  poison();
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i] = {};
    threads_[i].coordinates = {index_of(i, shape_.block), index, shape_.block, shape_.grid};
    fibers_[i]->start(enter, this);
  }
  running = this;
  size_t finished = 0;
  while (finished < threads_.size()) {
    bool has_moved = false;
    for (size_t turn = 0; turn < threads_.size(); ++turn) {
      const size_t i = is_backwards ? threads_.size() - 1 - turn : turn;
      if (fibers_[i]->has_finished() || threads_[i].waiting != Waiting::nothing) continue;
      resume(i);
      has_moved = true;
      finished += fibers_[i]->has_finished();
    }
    for (size_t warp = 0; warp < exchanged_.size(); ++warp) has_moved |= release_warp(warp);
    has_moved |= release_block();
    if (!has_moved && finished < threads_.size()) report_deadlock();
  }
}

void* Block::static_memory(size_t bytes, const std::source_location& where) {
  SharedMemory& memory =
      static_[{where.file_name(), where.function_name(), where.line(), where.column()}];
  if (!memory.bytes) {
    memory = {std::make_unique<std::byte[]>(bytes), bytes};
    memory.poison();
  }
  STMOE_CHECK(memory.size == bytes, "{}: shared memory of {} and of {} bytes", place(where),
              memory.size, bytes);
  return memory.bytes.get();
}

// Resets `running` also when a kernel throws.
struct RunningScope {
  ~RunningScope() { running = nullptr; }
};

}  // namespace

void run(const LaunchShape& shape, const Body& body, uint64_t seed) {
  STMOE_CHECK(running == nullptr, "launch: called inside a kernel");
  const RunningScope scope;
  const size_t count = volume(shape.grid);
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  RandomStream random{RandomKey{seed}};
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  if (count == 0) return;
  const MemoryAccess access;
  Block one(shape, body);
  for (size_t i : order) one.run(index_of(i, shape.grid), random.below(2) != 0);
}

const Coordinates& coordinates() { return block().current().coordinates; }

void sync_threads(const std::source_location& where) { block().wait(Waiting::block, where); }

std::array<uint64_t, kWarpSize> gather_warp(uint64_t value, const std::source_location& where) {
  Block& b = block();
  b.current().value = value;
  b.current().together = nullptr;
  b.wait(Waiting::warp, where);
  return b.exchanged();
}

void warp_together(void* mine, void (*together)(void* const* lanes),
                   const std::source_location& where) {
  Block& b = block();
  b.current().mine = mine;
  b.current().together = together;
  b.wait(Waiting::warp, where);
}

void* dynamic_shared() { return block().dynamic().bytes.get(); }

void* static_shared(size_t bytes, const std::source_location& where) {
  return block().static_memory(bytes, where);
}

}  // namespace stmoe::emu
