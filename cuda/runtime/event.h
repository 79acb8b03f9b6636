// SPDX-License-Identifier: Apache-2.0
// A point in a stream's work.
#pragma once

#include <utility>

#include "cuda/runtime/check.h"

namespace stmoe::gpu {

class Event {
 public:
  enum class Kind { order, time };
  explicit Event(Kind kind = Kind::order) {
    STMOE_CHECK_CUDA(cudaEventCreateWithFlags(
        &event_, kind == Kind::order ? cudaEventDisableTiming : cudaEventDefault));
  }
  ~Event() {
    if (event_) STMOE_LOG_CUDA(cudaEventDestroy(event_));
  }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  void record(cudaStream_t on) { STMOE_CHECK_CUDA(cudaEventRecord(event_, on)); }
  void wait() const { STMOE_CHECK_CUDA(cudaEventSynchronize(event_)); }
  // The work asked for on `later` from now on comes after this point.
  void hold(cudaStream_t later) const { STMOE_CHECK_CUDA(cudaStreamWaitEvent(later, event_, 0)); }
  bool is_over() const {
    const cudaError_t code = cudaEventQuery(event_);
    if (code == cudaErrorNotReady) return false;
    check_cuda(code, "cudaEventQuery(event_)");
    return true;
  }
  // Between two events of Kind::time that are over.
  float milliseconds_since(const Event& begin) const {
    float result = 0;
    STMOE_CHECK_CUDA(cudaEventElapsedTime(&result, begin.event_, event_));
    return result;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace stmoe::gpu
