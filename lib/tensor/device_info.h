// SPDX-License-Identifier: Apache-2.0
// What a device's runtime knows of the device, registered like kernels (cuda/runtime). Asking for
// it is the first use of the device: nothing of it is started before.
#pragma once

#include <string>

#include "lib/tensor/device.h"

namespace stmoe {

struct DeviceInfoKernels {
  static constexpr const char* kOp = "device information";
  // Why the device cannot be used: what was found, and what to do; empty when it can be used.
  std::string (*problem)();
  // "NVIDIA H200, 132 SMs, 139.8 GiB, driver 13.0", for the log; of a device that can be used.
  std::string (*description)();
};

// Why `device` cannot be used in this process, empty when it can.
std::string device_problem(Device device);
inline bool is_usable(Device device) { return device_problem(device).empty(); }
// Empty where nothing is known beside its name.
std::string device_description(Device device);

}  // namespace stmoe
