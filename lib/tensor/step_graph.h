// SPDX-License-Identifier: Apache-2.0
// A step's work on a device recorded as one graph and started at once: launches, copies and
// products cost the host a record each, and the device no gaps between them. A step is recorded
// anew each time, so that what launches are given by value (rates, seeds, sizes) may change; where
// the order of the work is the one of the step before, the graph that is there is only updated.
//
//   const auto graph = make_step_graph(device);      // one for each phase ("train", "evaluate")
//   StepRecording recording(*graph);                 // from here on, nothing runs
//   ...                                              // the step: forward, backward, update
//   recording.run();                                 // all of it runs; does not wait
//
// Within a recording
//  - nothing may be read on the host: Tensor::item, on(cpu) and copies to a host tensor throw
//    HostReadError. Read after run(), from tensors that are still there;
//  - the host's tensors that are copied to the device are read at once: they may change or go
//    before run();
//  - tensors may be made and go. Where the device has no room, or where recording would need more
//    of it than a run, OutOfMemoryError: so the first step of a phase, whose memory is not planned
//    yet (arena.h), should not be recorded.
// A step gives the same bytes recorded or not. On cpu and plan there is nothing to record: the work
// is done as it is asked for.
#pragma once

#include <memory>

#include "lib/tensor/device.h"

namespace stmoe {

// The host wants a value of a device in the middle of a recorded step.
struct HostReadError : BugError {
  HostReadError()
      : BugError(
            "step graph: the host reads a tensor of the device while a step is recorded; read it "
            "after it ran") {}
};

class StepGraph {
 public:
  virtual ~StepGraph() = default;
  // From now on what is asked of the device is recorded. Recordings do not nest.
  virtual void begin() = 0;
  // Ends the recording and starts what was recorded, after all work asked for before.
  virtual void run() = 0;
  // Ends the recording; what was recorded is dropped.
  virtual void abandon() noexcept = 0;
};

struct StepGraphKernels {
  static constexpr const char* kOp = "step graph";
  std::unique_ptr<StepGraph> (*make)();
};

std::unique_ptr<StepGraph> make_step_graph(Device device);

// Abandons the recording unless it was run: for steps that may throw.
class StepRecording {
 public:
  explicit StepRecording(StepGraph& graph) : graph_(graph) { graph_.begin(); }
  ~StepRecording() {
    if (open_) graph_.abandon();
  }
  StepRecording(const StepRecording&) = delete;
  StepRecording& operator=(const StepRecording&) = delete;
  void run() {
    open_ = false;
    graph_.run();
  }

 private:
  StepGraph& graph_;
  bool open_ = true;
};

}  // namespace stmoe
