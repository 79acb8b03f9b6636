// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/check.h"

#include <string_view>

#include "lib/base/error.h"
#include "lib/base/log.h"

namespace stmoe::gpu {
namespace {

std::string_view place(const std::source_location& where) {
  const std::string_view path(where.file_name());
  const size_t at = path.rfind("/cuda/");
  return at == std::string_view::npos ? path : path.substr(at + 1);
}

std::string_view advice(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return "; a kernel before it may be at fault: run again with CUDA_LAUNCH_BLOCKING=1 in the "
             "environment, which names it";
    case cudaErrorLaunchTimeout:
      return "; the system ends kernels that run too long on a GPU with a display";
    case cudaErrorECCUncorrectable:
      return "; the GPU's memory is damaged: use another one";
    case cudaErrorDevicesUnavailable:
      return "; another process has the GPU for itself";
    case cudaErrorNoKernelImageForDevice:
      return "; this program was built for other GPUs: build with this one's architecture in "
             "STMOE_CUDA_ARCHITECTURES";
    default:
      return "";
  }
}

}  // namespace

std::string describe_cuda_error(cudaError_t code, const char* call,
                                const std::source_location& where) {
  return format("CUDA: {} at {}:{}: {} ({}): {}{}", call, place(where), where.line(),
                cudaGetErrorName(code), static_cast<int>(code), cudaGetErrorString(code),
                advice(code));
}

void check_cuda(cudaError_t code, const char* call, const std::source_location& where) {
  if (code == cudaSuccess) [[likely]]
    return;
  static_cast<void>(cudaGetLastError());  // told here; not once more by the next call
  throw PeerError(describe_cuda_error(code, call, where));
}

void log_cuda(cudaError_t code, const char* call, const std::source_location& where) noexcept {
  // At the end of the process the driver may be gone before our objects are.
  if (code == cudaSuccess || code == cudaErrorCudartUnloading) return;
  static_cast<void>(cudaGetLastError());
  try {
    log_warn("{}", describe_cuda_error(code, call, where));
  } catch (...) {
  }
}

}  // namespace stmoe::gpu
