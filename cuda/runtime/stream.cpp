// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/stream.h"

#include <mutex>
#include <unordered_map>

#include "cuda/runtime/check.h"
#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"

namespace stmoe::gpu {
namespace {

constexpr int64_t kMostBlocksX = (int64_t{1} << 31) - 1, kMostBlocksY = 65535;
constexpr int kMostThreads = 1024;
constexpr size_t kSharedWithoutAsking = size_t{48} << 10;

std::string name_of_kernel(const void* kernel) {
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) == cudaSuccess && name) return name;
  static_cast<void>(cudaGetLastError());
  return "a kernel";
}

// More dynamic shared memory than any kernel may have has to be asked for, once for each kernel.
void allow_shared_memory(const void* kernel, size_t bytes) {
  if (bytes <= kSharedWithoutAsking) return;
  static std::mutex mutex;
  static auto* const allowed = new std::unordered_map<const void*, size_t>;
  const std::scoped_lock lock(mutex);
  size_t& most = (*allowed)[kernel];
  if (bytes <= most) return;
  STMOE_CHECK(bytes <= gpu().most_shared_bytes,
              "launch: {} asks for {} bytes of shared memory, {} has {} for a block",
              name_of_kernel(kernel), bytes, gpu().name, gpu().most_shared_bytes);
  STMOE_CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)));
  most = bytes;
}

}  // namespace

void launch_on_stream(const void* kernel, int64_t grid_x, int64_t grid_y, int threads,
                      size_t shared_bytes, void** arguments) {
  STMOE_CHECK(grid_x <= kMostBlocksX && grid_y <= kMostBlocksY && threads >= 32 &&
                  threads <= kMostThreads && threads % 32 == 0,
              "launch: {} with {} x {} blocks of {} threads", name_of_kernel(kernel), grid_x,
              grid_y, threads);
  const cudaStream_t where = stream();
  allow_shared_memory(kernel, shared_bytes);
  const cudaError_t code =
      cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y)),
                       dim3(static_cast<unsigned>(threads)), arguments, shared_bytes, where);
  if (code != cudaSuccess) [[unlikely]]
    check_cuda(code, format("launch of {} with {} x {} blocks of {} threads, {} bytes of shared "
                            "memory,",
                            name_of_kernel(kernel), grid_x, grid_y, threads, shared_bytes)
                         .c_str());
}

}  // namespace stmoe::gpu
