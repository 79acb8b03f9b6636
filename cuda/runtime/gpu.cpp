// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/gpu.h"

#include <atomic>
#include <cstdlib>
#include <fstream>

#include "cuda/runtime/check.h"
#include "cuda/runtime/probe.h"
#include "lib/base/error.h"
#include "lib/tensor/device_info.h"

namespace stmoe::gpu {
namespace {

std::string cuda_version(int version) {
  return format("{}.{}", version / 1000, version % 1000 / 10);
}

// "580.159.03" of the kernel's module, empty where it does not say.
std::string module_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string line, word, version;
  std::getline(file, line);
  const size_t at = line.find("Kernel Module");
  if (at == std::string::npos) return "";
  const size_t begin = line.find_first_of("0123456789", at);
  return begin == std::string::npos ? "" : line.substr(begin, line.find(' ', begin) - begin);
}

std::string visible_devices() {
  const char* value = std::getenv("CUDA_VISIBLE_DEVICES");
  return value ? format("; CUDA_VISIBLE_DEVICES is '{}'", value) : "";
}

std::string name_and_code(cudaError_t code) {
  return format("{} {}", cudaGetErrorName(code), static_cast<int>(code));
}

// Why the driver shows no device.
std::string explain(cudaError_t code) {
  int driver = 0, runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  static_cast<void>(cudaGetLastError());
  if (code == cudaErrorInsufficientDriver && driver == 0)
    return format("no NVIDIA driver was found ({})", name_and_code(code));
  if (code == cudaErrorInsufficientDriver)
    return format("the NVIDIA driver is for CUDA {}, this program needs {} ({})",
                  cuda_version(driver), cuda_version(runtime), name_and_code(code));
  if (code == cudaErrorNoDevice)
    return format("the NVIDIA driver shows no device ({}){}", name_and_code(code),
                  visible_devices());
  return format("the NVIDIA driver does not start: {} ({})", cudaGetErrorString(code),
                name_and_code(code));
}

// Fills in what the first device is; returns why it cannot be used.
std::string examine(Gpu& gpu) {
  int count = 0;  // left as it is on an error
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess)
    return explain(code);
  if (count == 0) return explain(cudaErrorNoDevice);
  cudaDeviceProp properties{};
  if (const cudaError_t code = cudaGetDeviceProperties(&properties, 0); code != cudaSuccess)
    return explain(code);
  gpu.name = properties.name;
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.memory_bytes = properties.totalGlobalMem;
  gpu.most_shared_bytes = properties.sharedMemPerBlockOptin;
  int version = 0;
  static_cast<void>(cudaDriverGetVersion(&version));
  gpu.driver = module_version();
  gpu.driver += format("{}CUDA {}", gpu.driver.empty() ? "" : ", ", cuda_version(version));
  if (gpu.major < kLeastMajor)
    return format("{} has compute capability {}.{}, at least {}.0 is needed", gpu.name, gpu.major,
                  gpu.minor, kLeastMajor);
  if (const cudaError_t code = cudaSetDevice(0); code != cudaSuccess)
    return format("{} cannot be used: {} ({})", gpu.name, cudaGetErrorString(code),
                  name_and_code(code));
  cudaFuncAttributes attributes{};
  if (const cudaError_t code = cudaFuncGetAttributes(&attributes, probe_kernel());
      code != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return format("this program has no kernels for {} (compute capability {}.{}): {} ({})",
                  gpu.name, gpu.major, gpu.minor, cudaGetErrorString(code), name_and_code(code));
  }
  return "";
}

struct Streams {
  cudaStream_t work = nullptr, copies = nullptr;

  Streams() {
    if (!gpu().problem.empty())
      throw PeerError(format("no CUDA device can be used: {}", gpu().problem));
    STMOE_CHECK_CUDA(cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking));
    STMOE_CHECK_CUDA(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
  }
};

// Never destroyed: tensors with static lifetime may be released after they would be.
const Streams& streams() {
  static const Streams* const streams = new Streams;
  // The current device is of a thread.
  static thread_local bool is_set = false;
  if (!is_set) STMOE_CHECK_CUDA(cudaSetDevice(0));
  is_set = true;
  return *streams;
}

std::atomic<bool> recording{false};

std::string problem() { return gpu().problem; }
std::string description() {
  const Gpu& found = gpu();
  return format("{}, {} multiprocessors, {:.1f} GiB, driver {}", found.name, found.multiprocessors,
                static_cast<double>(found.memory_bytes) / (1 << 30), found.driver);
}

}  // namespace

const Gpu& gpu() {
  static const Gpu* const found = [] {
    auto* result = new Gpu;
    result->problem = examine(*result);
    return result;
  }();
  return *found;
}

cudaStream_t stream() { return streams().work; }
cudaStream_t copy_stream() { return streams().copies; }

bool is_recording() { return recording; }
void set_recording(bool value) { recording = value; }
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(DeviceInfoKernels, cuda, {gpu::problem, gpu::description})

}  // namespace stmoe
