// SPDX-License-Identifier: Apache-2.0
// --device: auto is CUDA when it is built in and a device answers, else the CPU. Looking for a CUDA
// device starts its driver; --device cpu does not.
#pragma once

#include <string>

#include "lib/tensor/device.h"

namespace stmoe {

struct DeviceChoice {
  Device device = Device::cpu;
  std::string reason;  // which CUDA device, or why it is another
};

// `name` is auto, cpu or cuda, or emu, which is for developers. Throws PeerError (exit code 5)
// saying what was found when it cannot be had.
DeviceChoice choose_device(const std::string& name);

}  // namespace stmoe
