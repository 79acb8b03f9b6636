// SPDX-License-Identifier: Apache-2.0
#include "cuda/emu/recording.h"

#include <utility>
#include <vector>

#include "lib/tensor/step_graph.h"

namespace stmoe::emu {
namespace {

using Works = std::vector<std::function<void()>>;

struct Recording {
  bool is_open = false;
  Works works, releases;
};

Recording& recording() {
  static auto* const recording = new Recording;
  return *recording;
}

// Ends the recording; calls the releases whatever happens.
class Ended {
 public:
  Ended() : recorded_(std::exchange(recording(), {})) {}
  ~Ended() {
    for (const auto& release : recorded_.releases) release();
  }
  Ended(const Ended&) = delete;
  Ended& operator=(const Ended&) = delete;
  const Works& works() const { return recorded_.works; }

 private:
  Recording recorded_;
};

class EmulatedGraph final : public StepGraph {
 public:
  void begin() override {
    STMOE_CHECK(!recording().is_open, "step graph: a step is being recorded already");
    recording().is_open = true;
  }
  void run() override {
    STMOE_CHECK(recording().is_open, "step graph: nothing was recorded");
    const Ended ended;
    for (const auto& work : ended.works()) work();
  }
  void abandon() noexcept override { const Ended ended; }
};

std::unique_ptr<StepGraph> make_emulated() { return std::make_unique<EmulatedGraph>(); }

}  // namespace

bool is_recording() { return recording().is_open; }

void run_or_record(std::function<void()> work) {
  if (recording().is_open)
    recording().works.push_back(std::move(work));
  else
    work();
}

void run_after_recording(std::function<void()> release) {
  if (recording().is_open)
    recording().releases.push_back(std::move(release));
  else
    release();
}

}  // namespace stmoe::emu

namespace stmoe {

STMOE_REGISTER_KERNELS(StepGraphKernels, emu, {emu::make_emulated})

}  // namespace stmoe
