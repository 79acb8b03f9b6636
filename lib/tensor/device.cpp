// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/device.h"

namespace stmoe {

std::string_view name_of(Device device) {
  static constexpr std::string_view kNames[] = {"cpu", "emu", "cuda"};
  return kNames[static_cast<int>(device)];
}

void fail_missing_kernels(const char* op, Device device) {
  throw BugError(format("{}: there is no kernel for device {}", op, name_of(device)));
}

}  // namespace stmoe
