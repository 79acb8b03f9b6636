// SPDX-License-Identifier: Apache-2.0
// Steps recorded by stream capture (CUDA C++ Programming Guide, "CUDA graphs"). A new recording of
// the same kernels in the same order updates the executable graph of the one before; any other is
// made executable anew.
#include "lib/tensor/step_graph.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/gpu.h"
#include "cuda/runtime/staging.h"
#include "lib/base/error.h"
#include "lib/base/log.h"

namespace stmoe::gpu {
namespace {

// What was captured, destroyed at the end of its scope: the executable graph keeps what it needs.
class Captured {
 public:
  ~Captured() {
    if (graph_) STMOE_LOG_CUDA(cudaGraphDestroy(graph_));
  }
  cudaGraph_t* address() { return &graph_; }
  cudaGraph_t get() const { return graph_; }

 private:
  cudaGraph_t graph_ = nullptr;
};

class CapturedSteps final : public StepGraph {
 public:
  ~CapturedSteps() override {
    if (executable_) STMOE_LOG_CUDA(cudaStreamSynchronize(stream()));
    drop_executable();
  }

  void begin() override {
    STMOE_CHECK(!is_recording(), "step graph: a step is being recorded already");
    // Relaxed: what the step asks of the driver besides (memory, modules loaded at a kernel's first
    // use) is allowed.
    STMOE_CHECK_CUDA(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed));
    set_recording(true);
  }

  void run() override {
    STMOE_CHECK(is_recording(), "step graph: nothing was recorded");
    set_recording(false);
    Captured captured;
    STMOE_CHECK_CUDA(cudaStreamEndCapture(stream(), captured.address()));
    if (executable_ && !update(captured.get())) {
      STMOE_CHECK_CUDA(cudaStreamSynchronize(stream()));  // it may be running
      drop_executable();
    }
    if (!executable_) STMOE_CHECK_CUDA(cudaGraphInstantiate(&executable_, captured.get(), 0));
    STMOE_CHECK_CUDA(cudaGraphLaunch(executable_, stream()));
    note_recorded_copies();
  }

  void abandon() noexcept override {
    set_recording(false);
    try {
      Captured captured;
      // An error in the capture is told by whatever abandoned it.
      static_cast<void>(cudaStreamEndCapture(stream(), captured.address()));
      static_cast<void>(cudaGetLastError());
    } catch (const Error& error) {
      log_warn("{}", error.what());
    }
  }

 private:
  bool update(cudaGraph_t graph) {
    cudaGraphExecUpdateResultInfo result{};
    const cudaError_t code = cudaGraphExecUpdate(executable_, graph, &result);
    if (code != cudaErrorGraphExecUpdateFailure) {
      check_cuda(code, "cudaGraphExecUpdate(executable_, graph, &result)");
      return true;
    }
    static_cast<void>(cudaGetLastError());
    log_debug("step graph: the work of this step is not that of the last (result {}): made anew",
              static_cast<int>(result.result));
    return false;
  }

  void drop_executable() noexcept {
    if (executable_) STMOE_LOG_CUDA(cudaGraphExecDestroy(executable_));
    executable_ = nullptr;
  }

  cudaGraphExec_t executable_ = nullptr;
};

std::unique_ptr<StepGraph> make_captured() { return std::make_unique<CapturedSteps>(); }

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(StepGraphKernels, cuda, {gpu::make_captured})

}  // namespace stmoe
