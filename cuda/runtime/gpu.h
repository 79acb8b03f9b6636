// SPDX-License-Identifier: Apache-2.0
// The GPU of this process: the first that the driver shows (CUDA_VISIBLE_DEVICES chooses another).
// Looking for it is what starts the driver; that happens at the first call of these functions.
#pragma once

#include <string>

#include <cuda_runtime_api.h>

namespace stmoe::gpu {

// The oldest that has bf16 products.
inline constexpr int kLeastMajor = 8;

struct Gpu {
  std::string problem;  // why there is none that can be used; empty when there is one
  std::string name, driver;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  size_t most_shared_bytes = 0;  // of a block
};

// What was found, looked for once.
const Gpu& gpu();

// The stream that all work is asked for on, and one for copies beside it. Throw PeerError with
// gpu().problem.
cudaStream_t stream();
cudaStream_t copy_stream();

// Whether work on stream() is being recorded (step_graph.cpp) instead of done.
bool is_recording();
void set_recording(bool is_recording);

}  // namespace stmoe::gpu
