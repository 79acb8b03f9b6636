// SPDX-License-Identifier: Apache-2.0
#include "apps/common/device_choice.h"

#include "apps/common/version.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

// Why CUDA cannot be used.
std::string missing_cuda() {
  return is_cuda_built() ? "this version cannot start it" : "built without CUDA";
}

}  // namespace

DeviceChoice choose_device(const std::string& name) {
  if (name == "cpu") return {Device::cpu, "asked for by --device cpu"};
  if (name == "cuda")
    throw PeerError(format(
        "--device cuda: no CUDA device can be used: {}; use --device cpu or auto", missing_cuda()));
  if (name == "auto") return {Device::cpu, missing_cuda()};
  throw UsageError(format("--device: '{}' is unknown; expected auto, cpu or cuda", name));
}

}  // namespace stmoe
