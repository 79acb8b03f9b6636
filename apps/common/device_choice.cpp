// SPDX-License-Identifier: Apache-2.0
#include "apps/common/device_choice.h"

#include "lib/base/error.h"
#include "lib/tensor/device_info.h"

namespace stmoe {

DeviceChoice choose_device(const std::string& name) {
  if (name == "cpu") return {Device::cpu, "asked for by --device cpu"};
  if (name == "emu") {
    if (!is_usable(Device::emu)) throw UsageError("--device emu: " + device_problem(Device::emu));
    return {Device::emu, "kernels for a GPU run on the host, slowly: for developers"};
  }
  if (name != "auto" && name != "cuda")
    throw UsageError(format("--device: '{}' is unknown; expected auto, cpu or cuda", name));
  const std::string problem = device_problem(Device::cuda);
  if (problem.empty()) return {Device::cuda, device_description(Device::cuda)};
  if (name == "auto") return {Device::cpu, problem};
  throw PeerError(
      format("--device cuda: no CUDA device can be used: {}; use --device cpu or auto", problem));
}

}  // namespace stmoe
