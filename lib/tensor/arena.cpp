// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/arena.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "lib/tensor/pages.h"

namespace stmoe {
namespace {

thread_local StepArena* current_arena = nullptr;

}  // namespace

namespace {

// What a step's tensors lie in, on the host or on a device.
class Block {
 public:
  Block() = default;
  Block(size_t bytes, Device device) : bytes_(bytes) {
    if (is_host_memory(device))
      pages_ = Pages(bytes);
    else
      buffer_ = allocate_on_heap(bytes, device);
  }
  std::byte* data() const { return buffer_ ? buffer_->data() : pages_.data(); }
  size_t bytes() const { return bytes_; }

 private:
  Pages pages_;
  std::shared_ptr<Buffer> buffer_;
  size_t bytes_ = 0;
};

}  // namespace

class StepArena::Impl : public std::enable_shared_from_this<StepArena::Impl> {
 public:
  explicit Impl(Device device) : device_(device) {}
  // While planning, `plan` is every device.
  bool serves(Device device) const { return device == device_ || device == Device::plan; }

  void begin(std::string_view phase) {
    STMOE_CHECK(!open_, "arena: a step is already open");
    open_ = true;
    phase_ = &phases_[std::string(phase)];
    if (live_in_block_.empty()) {
      // A phase's first step needs the heap: another phase's block beside it would be memory twice.
      if (phase_->plan.bytes == 0) block_ = {};
      reserve(phase_->plan.bytes);
    }
    recorded_.clear();
    clock_ = 0;
    used_heap_ = false;
    live_count_ = live_bytes_ = 0;
    ++step_;
  }

  void end(bool check) {
    open_ = false;
    if (check)
      STMOE_CHECK(live_count_ == 0, "arena: {} tensors ({} bytes) outlive the step", live_count_,
                  live_bytes_);
    for (Lifetime& item : recorded_)
      if (item.end == 0) item.end = clock_ + 1;
    if (check && used_heap_) {
      // Sizes that vary from step to step (tokens of an expert) grow to the largest seen.
      if (recorded_.size() == phase_->lifetimes.size())
        for (size_t i = 0; i < recorded_.size(); ++i)
          recorded_[i].bytes = std::max(recorded_[i].bytes, phase_->lifetimes[i].bytes);
      phase_->lifetimes = recorded_;
      phase_->plan = plan_offsets(recorded_);
    }
    phase_ = nullptr;
  }

  std::shared_ptr<Buffer> allocate(size_t bytes, Device device);

  void release(int64_t step, size_t slot, size_t bytes, size_t offset, bool in_block) {
    if (in_block) live_in_block_.erase(offset);
    if (!open_ || step != step_) return;
    recorded_[slot].end = ++clock_;
    --live_count_;
    live_bytes_ -= bytes;
  }

  size_t planned_bytes() const {
    size_t most = 0;
    for (const auto& [name, phase] : phases_) most = std::max(most, phase.plan.bytes);
    return most;
  }
  size_t peak_live_bytes() const { return peak_live_bytes_; }
  const std::vector<Lifetime>& last_step() const { return recorded_; }

 private:
  struct Phase {
    std::vector<Lifetime> lifetimes;
    ArenaPlan plan;
  };

  // Grows the block; only called while nothing lives in it.
  void reserve(size_t bytes) {
    if (bytes <= block_.bytes()) return;
    block_ = {};
    block_ = Block(bytes, device_);
    if (!block_.data())
      throw OutOfMemoryError(
          format("out of memory: a step needs {} MiB for activations and gradients; raise "
                 "train.accumulate or lower data.batch_size",
                 bytes >> 20));
  }

  bool is_free(size_t offset, size_t bytes) const {
    auto next = live_in_block_.lower_bound(offset);
    if (next != live_in_block_.end() && next->first < offset + bytes) return false;
    if (next == live_in_block_.begin()) return true;
    --next;
    return next->first + next->second <= offset;
  }

  std::map<std::string, Phase> phases_;
  Phase* phase_ = nullptr;
  bool open_ = false, used_heap_ = false;
  int64_t step_ = 0, clock_ = 0;
  std::vector<Lifetime> recorded_;
  size_t live_count_ = 0, live_bytes_ = 0, peak_live_bytes_ = 0;
  Block block_;
  Device device_;
  std::map<size_t, size_t> live_in_block_;  // offset -> bytes

  friend class ArenaBuffer;
};

// A tensor's memory within a step; tells the arena when it ends, which may be after the arena's
// last step.
class ArenaBuffer final : public Buffer {
 public:
  ArenaBuffer(std::shared_ptr<StepArena::Impl> arena, int64_t step, size_t slot, std::byte* data,
              size_t bytes, size_t offset, std::shared_ptr<Buffer> heap, Device device)
      : Buffer(data, bytes, device),
        arena_(std::move(arena)),
        step_(step),
        slot_(slot),
        offset_(offset),
        heap_(std::move(heap)) {}
  ~ArenaBuffer() override { arena_->release(step_, slot_, bytes_, offset_, heap_ == nullptr); }

 private:
  std::shared_ptr<StepArena::Impl> arena_;
  int64_t step_;
  size_t slot_, offset_;
  std::shared_ptr<Buffer> heap_;
};

std::shared_ptr<Buffer> StepArena::Impl::allocate(size_t bytes, Device device) {
  const size_t slot = recorded_.size();
  recorded_.push_back({bytes, ++clock_, 0, current_op()});
  ++live_count_;
  live_bytes_ += bytes;
  peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
  const auto& planned = phase_->lifetimes;
  if (block_.data() && slot < planned.size() && bytes <= planned[slot].bytes) {
    const size_t offset = phase_->plan.offsets[slot];
    if (offset + arena_bytes(bytes) <= block_.bytes() && is_free(offset, arena_bytes(bytes))) {
      live_in_block_[offset] = arena_bytes(bytes);
      return std::make_shared<ArenaBuffer>(shared_from_this(), step_, slot, block_.data() + offset,
                                           bytes, offset, nullptr, device);
    }
  }
  used_heap_ = true;
  auto heap = allocate_on_heap(bytes, device);
  std::byte* data = heap->data();
  return std::make_shared<ArenaBuffer>(shared_from_this(), step_, slot, data, bytes, 0,
                                       std::move(heap), device);
}

StepArena::StepArena(Device device) : impl_(std::make_shared<Impl>(device)) {}
StepArena::~StepArena() {
  if (current_arena == this) current_arena = nullptr;
}

void StepArena::begin_step(std::string_view phase) {
  STMOE_CHECK(current_arena == nullptr, "arena: a step of another arena is open");
  impl_->begin(phase);
  current_arena = this;
}

void StepArena::end_step() {
  current_arena = nullptr;
  impl_->end(/*check=*/true);
}

void StepArena::abandon_step() {
  current_arena = nullptr;
  impl_->end(/*check=*/false);
}

std::shared_ptr<Buffer> StepArena::allocate(size_t bytes, Device device) {
  return impl_->serves(device) ? impl_->allocate(bytes, device) : nullptr;
}

size_t StepArena::planned_bytes() const { return impl_->planned_bytes(); }
size_t StepArena::peak_live_bytes() const { return impl_->peak_live_bytes(); }
std::vector<StepArena::AlivePart> StepArena::alive_at_peak() const {
  const std::vector<Lifetime>& items = impl_->last_step();
  std::map<int64_t, int64_t> changes;  // bytes by event
  for (const Lifetime& item : items) {
    changes[item.begin] += static_cast<int64_t>(item.bytes);
    changes[item.end] -= static_cast<int64_t>(item.bytes);
  }
  int64_t live = 0, most = 0, when = 0;
  for (const auto& [event, change] : changes) {
    live += change;
    if (live > most) most = live, when = event;
  }
  std::map<std::pair<std::string_view, OpScope::Pass>, AlivePart> parts;
  for (const Lifetime& item : items) {
    if (item.begin > when || item.end <= when) continue;
    AlivePart& part = parts[{item.maker.op, item.maker.pass}];
    part.maker = item.maker;
    part.bytes += item.bytes;
    ++part.tensors;
  }
  std::vector<AlivePart> sorted;
  for (const auto& [key, part] : parts) sorted.push_back(part);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const AlivePart& a, const AlivePart& b) { return a.bytes > b.bytes; });
  return sorted;
}

StepArena* StepArena::current() { return current_arena; }

ArenaStep::ArenaStep(StepArena& arena, std::string_view phase) : arena_(arena) {
  arena_.begin_step(phase);
}

void ArenaStep::finish() {
  open_ = false;
  arena_.end_step();
}

ArenaStep::~ArenaStep() {
  if (open_) arena_.abandon_step();
}

}  // namespace stmoe
