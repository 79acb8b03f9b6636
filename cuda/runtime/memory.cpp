// SPDX-License-Identifier: Apache-2.0
// The GPU's memory for tensors. Released memory is used again at once: all work is on one stream.
#include <mutex>
#include <string>

#include "cuda/runtime/check.h"
#include "cuda/runtime/gpu.h"
#include "cuda/runtime/segment_pool.h"
#include "cuda/runtime/staging.h"
#include "lib/base/error.h"
#include "lib/tensor/buffer.h"
#include "lib/tensor/device_memory.h"

namespace stmoe::gpu {
namespace {

std::byte* take(size_t bytes) {
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, bytes);
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  check_cuda(code, "cudaMalloc(&data, bytes)");
  return static_cast<std::byte*>(data);
}

void give_back(std::byte* data) {
  STMOE_CHECK_CUDA(cudaStreamSynchronize(stream()));
  STMOE_CHECK_CUDA(cudaFree(data));
}

struct Pool {
  std::mutex mutex;
  SegmentPool segments{{take, give_back}};
};

// Never destroyed: tensors with static lifetime may be released after it would be.
Pool& pool() {
  static auto* const pool = new Pool;
  return *pool;
}

std::string gib(size_t bytes) {
  return format("{:.2f} GiB", static_cast<double>(bytes) / (size_t{1} << 30));
}

[[noreturn]] void throw_no_room(size_t bytes, const SegmentPool& segments) {
  size_t free = 0, total = 0;
  STMOE_CHECK_CUDA(cudaMemGetInfo(&free, &total));
  throw OutOfMemoryError(format(
      "out of memory on {}: {} asked for; {} of {} are free, this program uses {} and holds {} "
      "unused in pieces; lower data.batch_size, raise train.accumulate, or set "
      "model.recompute: block and precision.compute: bf16",
      gpu().name, gib(bytes), gib(free), gib(total), gib(segments.bytes_in_use()),
      gib(segments.bytes_taken() - segments.bytes_in_use())));
}

std::byte* allocate(size_t bytes) {
  static_cast<void>(stream());  // throws where there is no device
  Pool& all = pool();
  const std::scoped_lock lock(all.mutex);
  if (std::byte* data = all.segments.allocate(bytes, !is_recording())) return data;
  throw_no_room(bytes, all.segments);
}

void release(std::byte* data, size_t) {
  Pool& all = pool();
  const std::scoped_lock lock(all.mutex);
  all.segments.release(data);
}

void to_device(std::byte* to, const std::byte* from, size_t bytes) {
  if (!is_planning()) copy_to_gpu(to, from, bytes);
}

void to_host(std::byte* to, const std::byte* from, size_t bytes) {
  if (!is_planning()) copy_to_host(to, from, bytes);
}

void zero(std::byte* to, size_t bytes) {
  if (!is_planning()) STMOE_CHECK_CUDA(cudaMemsetAsync(to, 0, bytes, stream()));
}

void wait() {
  if (!is_planning()) STMOE_CHECK_CUDA(cudaStreamSynchronize(stream()));
}

int64_t used() {
  static_cast<void>(stream());
  size_t free = 0, all = 0;
  STMOE_CHECK_CUDA(cudaMemGetInfo(&free, &all));
  return static_cast<int64_t>(all - free);
}

int64_t total() {
  static_cast<void>(stream());
  return static_cast<int64_t>(gpu().memory_bytes);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(DeviceMemoryKernels, cuda,
                       {gpu::allocate, gpu::release, gpu::to_device, gpu::to_host, gpu::zero,
                        gpu::wait, gpu::total, gpu::used})

}  // namespace stmoe
