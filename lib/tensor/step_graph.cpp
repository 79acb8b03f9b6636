// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/step_graph.h"

namespace stmoe {
namespace {

class DirectSteps final : public StepGraph {
 public:
  void begin() override {}
  void run() override {}
  void abandon() noexcept override {}
};

}  // namespace

std::unique_ptr<StepGraph> make_step_graph(Device device) {
  if (is_host_memory(device) || is_planning()) return std::make_unique<DirectSteps>();
  return kernels<StepGraphKernels>(device).make();
}

}  // namespace stmoe
