// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/device_info.h"

#include "lib/tensor/device_memory.h"

namespace stmoe {

std::string device_problem(Device device) {
  if (is_host_memory(device)) return "";
  if (!has_kernels(kernel_table<DeviceMemoryKernels>, device))
    return format("built without {}", device == Device::cuda ? "CUDA" : "emulation");
  if (!has_kernels(kernel_table<DeviceInfoKernels>, device)) return "";
  return kernels<DeviceInfoKernels>(device).problem();
}

std::string device_description(Device device) {
  if (is_host_memory(device) || !has_kernels(kernel_table<DeviceInfoKernels>, device)) return "";
  return kernels<DeviceInfoKernels>(device).description();
}

}  // namespace stmoe
