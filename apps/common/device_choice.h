// SPDX-License-Identifier: Apache-2.0
// --device: auto is CUDA when it is built in and a device answers, else the CPU.
#pragma once

#include <string>

#include "lib/tensor/device.h"

namespace stmoe {

struct DeviceChoice {
  Device device = Device::cpu;
  std::string reason;
};

// `name` is auto, cpu or cuda. Throws PeerError (exit code 5) saying what was found when it cannot
// be had.
DeviceChoice choose_device(const std::string& name);

}  // namespace stmoe
