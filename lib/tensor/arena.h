// SPDX-License-Identifier: Apache-2.0
// A planned arena for the tensors of one training step. The first step of a phase ("train",
// "evaluate") runs on the heap while sizes and lifetimes are recorded; then offsets are planned
// (largest first, best fit between the lifetimes that overlap) and every later step of that phase
// takes its memory from one block, in the order of allocation. A step with smaller tensors (a last,
// short batch) fits the same plan; what does not fit goes to the heap, and the phase is planned
// anew. An arena serves one device; tensors of a step on other devices come from their heaps.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/profile.h"
#include "lib/tensor/buffer.h"

namespace stmoe {

// One allocation of a step: alive in the half-open interval [begin, end) of event numbers.
struct Lifetime {
  size_t bytes = 0;
  int64_t begin = 0, end = 0;
  CurrentOp maker = {};
};

struct ArenaPlan {
  std::vector<size_t> offsets;  // one per lifetime
  size_t bytes = 0;             // of the whole block
};

// What an allocation takes of the block.
inline size_t arena_bytes(size_t bytes) {
  constexpr size_t kAlignment = 256;  // what matrix products on a GPU like best
  return std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
}

// Places lifetimes so that two that overlap in time never overlap in memory; 256-byte aligned
// offsets.
ArenaPlan plan_offsets(const std::vector<Lifetime>& lifetimes);

class StepArena {
 public:
  explicit StepArena(Device device = Device::cpu);
  ~StepArena();
  StepArena(const StepArena&) = delete;
  StepArena& operator=(const StepArena&) = delete;

  // Between begin_step and end_step, allocate() on this thread comes from this arena. Tensors made
  // in a step must not outlive it unless they were allocated with allocate_on_heap
  // (Tensor::clone_to_heap); end_step throws BugError with the number of those that do.
  void begin_step(std::string_view phase);
  void end_step();
  // Ends a step after an exception: nothing is checked, nothing is planned.
  void abandon_step();

  // Null where the device is not the arena's.
  std::shared_ptr<Buffer> allocate(size_t bytes, Device device);
  // Size of the block, 0 before the first plan.
  size_t planned_bytes() const;
  // Largest sum of live bytes in any step so far: what a perfect plan would need.
  size_t peak_live_bytes() const;

  // What is alive at the moment of the last step when most is, by the op that made it (profile.h:
  // steps that were recorded), largest first.
  struct AlivePart {
    CurrentOp maker;
    size_t bytes = 0;
    int64_t tensors = 0;
  };
  std::vector<AlivePart> alive_at_peak() const;

  // The arena whose step is open on this thread, or null.
  static StepArena* current();

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

// begin_step in the constructor, end_step in finish() or, when leaving by an exception, an
// abandoned step without checks.
class ArenaStep {
 public:
  ArenaStep(StepArena& arena, std::string_view phase);
  ~ArenaStep();
  void finish();

 private:
  StepArena& arena_;
  bool open_ = true;
};

}  // namespace stmoe
