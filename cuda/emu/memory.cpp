// SPDX-License-Identifier: Apache-2.0
// Memory lies in one range of addresses; released pieces are used again, neighbours joined.
#include "cuda/emu/memory.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include "cuda/emu/recording.h"
#include "lib/tensor/buffer.h"
#include "lib/tensor/device_memory.h"
#include "lib/tensor/step_graph.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace stmoe::emu {
namespace {

constexpr size_t kAddresses = size_t{1} << 37, kPage = 4096;
constexpr size_t kAlignment = 256, kGuard = 256;
constexpr unsigned char kFresh = 0xff, kGuardByte = 0xa5;

class Memory {
 public:
  static Memory& instance() {
    // Never destroyed: tensors with static lifetime may be released after it would be.
    static Memory* const memory = new Memory;
    return *memory;
  }

  std::byte* allocate(size_t bytes) {
    const std::scoped_lock lock(mutex_);
    const size_t size = taken(bytes);
    auto found =
        std::ranges::find_if(free_, [&](const auto& piece) { return piece.second >= size; });
    if (found == free_.end())
      throw OutOfMemoryError(format("out of memory on the emulated device: {} MiB", bytes >> 20));
    const auto [offset, room] = *found;
    free_.erase(found);
    if (room > size) free_[offset + size] = room - size;
    used_ = std::max(used_, offset + size);
    std::byte* data = base_ + offset;
    Opened opened(*this);
    ASAN_UNPOISON_MEMORY_REGION(data, size);
    std::memset(data, kFresh, bytes);
    std::memset(data + bytes, kGuardByte, size - bytes);
    ASAN_POISON_MEMORY_REGION(data + bytes, size - bytes);
    return data;
  }

  void release(std::byte* data, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    size_t offset = static_cast<size_t>(data - base_), size = taken(bytes);
    Opened opened(*this);
    check_guard(data, bytes, size);
    ASAN_POISON_MEMORY_REGION(data, size);
    ::madvise(data, size / kPage * kPage, MADV_DONTNEED);
    auto next = free_.lower_bound(offset);
    if (next != free_.end() && next->first == offset + size) {
      size += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin())
      if (auto before = std::prev(next); before->first + before->second == offset) {
        before->second += size;
        return;
      }
    free_[offset] = size;
  }

  bool contains(const void* address) const {
    return address >= base_ && address < base_ + kAddresses;
  }

  size_t used() const { return used_; }

  void open() {
    const std::scoped_lock lock(mutex_);
    open_locked();
  }
  void close() {
    const std::scoped_lock lock(mutex_);
    close_locked();
  }
  void throw_overrun() {
    if (const std::string text = std::exchange(overrun_, ""); !text.empty()) throw BugError(text);
  }

 private:
  struct Opened {
    explicit Opened(Memory& memory) : memory_(memory) { memory_.open_locked(); }
    ~Opened() { memory_.close_locked(); }
    Memory& memory_;
  };

  Memory() {
    void* addresses =
        ::mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    STMOE_CHECK(addresses != MAP_FAILED, "the system has no addresses for the emulated device");
    base_ = static_cast<std::byte*>(addresses);
    free_[0] = kAddresses;
  }

  static size_t taken(size_t bytes) {
    return (bytes + kGuard + kAlignment - 1) / kAlignment * kAlignment;
  }

  void open_locked() {
    if (opened_++ > 0 && writable_ >= used_) return;
    writable_ = (used_ + kPage - 1) / kPage * kPage;
    if (writable_ > 0) ::mprotect(base_, writable_, PROT_READ | PROT_WRITE);
  }
  void close_locked() {
    if (--opened_ == 0 && writable_ > 0) ::mprotect(base_, writable_, PROT_NONE);
  }

  void check_guard([[maybe_unused]] std::byte* data, [[maybe_unused]] size_t bytes,
                   [[maybe_unused]] size_t size) {
#if !defined(__SANITIZE_ADDRESS__)
    if (!std::all_of(data + bytes, data + size,
                     [](std::byte b) { return b == std::byte{kGuardByte}; }))
      overrun_ = format("a kernel wrote behind a tensor of {} bytes", bytes);
#endif
  }

  std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::map<size_t, size_t> free_;  // offset -> bytes
  size_t used_ = 0, writable_ = 0;
  int opened_ = 0;
  std::string overrun_;
};

thread_local int host_pointers = 0;

std::byte* allocate_emu(size_t bytes) { return Memory::instance().allocate(bytes); }
void release_emu(std::byte* data, size_t bytes) {
  run_after_recording([=] { Memory::instance().release(data, bytes); });
}

void copy_bytes(std::byte* to, const std::byte* from, size_t bytes) {
  Memory::instance().throw_overrun();
  const MemoryAccess access;
  std::memcpy(to, from, bytes);
}

void to_emu(std::byte* to, const std::byte* from, size_t bytes) {
  if (is_planning()) return;
  if (!is_recording()) return copy_bytes(to, from, bytes);
  run_or_record([to, kept = std::vector<std::byte>(from, from + bytes)] {
    copy_bytes(to, kept.data(), kept.size());
  });
}

void to_host(std::byte* to, const std::byte* from, size_t bytes) {
  if (is_planning()) return;
  if (is_recording()) throw HostReadError();
  copy_bytes(to, from, bytes);
}

void zero_emu(std::byte* to, size_t bytes) {
  if (is_planning()) return;
  run_or_record([=] {
    const MemoryAccess access;
    std::memset(to, 0, bytes);
  });
}

void wait_emu() {}  // work is done as it is asked for
int64_t used_emu() { return static_cast<int64_t>(Memory::instance().used()); }
int64_t total_emu() { return static_cast<int64_t>(kAddresses); }

STMOE_REGISTER_KERNELS(DeviceMemoryKernels, emu,
                       {allocate_emu, release_emu, to_emu, to_host, zero_emu, wait_emu, total_emu,
                        used_emu})

}  // namespace

MemoryAccess::MemoryAccess() { Memory::instance().open(); }
MemoryAccess::~MemoryAccess() { Memory::instance().close(); }

bool is_device_memory(const void* address) { return Memory::instance().contains(address); }

HostPointers::HostPointers() { ++host_pointers; }
HostPointers::~HostPointers() { --host_pointers; }

void check_pointer(const void* address) {
  Memory::instance().throw_overrun();
  STMOE_CHECK(address == nullptr || host_pointers > 0 || is_device_memory(address),
              "launch: a kernel is given host memory");
}

}  // namespace stmoe::emu
