// SPDX-License-Identifier: Apache-2.0
// Every call of the CUDA runtime is checked: STMOE_CHECK_CUDA(cudaMemsetAsync(...)) throws
// PeerError that names the call, the place, the error and its text; in destructors STMOE_LOG_CUDA
// logs the same. A kernel's fault is told by whichever call comes after it.
#pragma once

#include <source_location>
#include <string>

#include <cuda_runtime_api.h>

namespace stmoe::gpu {

// "cudaMalloc(...) at cuda/runtime/memory.cpp:31: cudaErrorNoDevice (100): no CUDA-capable device
// is detected", and what to do where that is known.
std::string describe_cuda_error(cudaError_t code, const char* call,
                                const std::source_location& where);

void check_cuda(cudaError_t code, const char* call,
                const std::source_location& where = std::source_location::current());
void log_cuda(cudaError_t code, const char* call,
              const std::source_location& where = std::source_location::current()) noexcept;

}  // namespace stmoe::gpu

#define STMOE_CHECK_CUDA(...) ::stmoe::gpu::check_cuda((__VA_ARGS__), #__VA_ARGS__)
#define STMOE_LOG_CUDA(...) ::stmoe::gpu::log_cuda((__VA_ARGS__), #__VA_ARGS__)
