// SPDX-License-Identifier: Apache-2.0
// Devices and per-device tables of kernels. An op's CPU and CUDA files register their kernels when
// the objects load; nothing else is edited to add a device or an op.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace stmoe {

// `emu` runs CUDA kernels on host threads for tests; its memory is host memory.
enum class Device : uint8_t { cpu, emu, cuda };
inline constexpr int kNumDevices = 3;

std::string_view name_of(Device device);
inline bool is_host_memory(Device device) { return device != Device::cuda; }

// `Kernels` is a plain struct of function pointers with `static constexpr const char* kOp`.
template <class Kernels>
class KernelTable {
 public:
  static const Kernels*& entry(Device device) {
    static std::array<const Kernels*, kNumDevices> entries{};
    return entries[static_cast<int>(device)];
  }
};

[[noreturn]] void fail_missing_kernels(const char* op, Device device);

// The kernels of an op on a device. `emu` falls back to `cpu`, so that a whole model runs there.
template <class Kernels>
const Kernels& kernels(Device device) {
  const Kernels* found = KernelTable<Kernels>::entry(device);
  if (!found && device == Device::emu) found = KernelTable<Kernels>::entry(Device::cpu);
  if (!found) fail_missing_kernels(Kernels::kOp, device);
  return *found;
}

}  // namespace stmoe

// STMOE_REGISTER_KERNELS(RmsNormKernels, cpu, {forward_cpu, backward_cpu})
#define STMOE_REGISTER_KERNELS(Kernels, device, ...)                                      \
  static const Kernels stmoe_kernels_##Kernels##_##device = Kernels __VA_ARGS__;          \
  [[maybe_unused]] static const bool stmoe_kernels_registered_##Kernels##_##device = [] { \
    ::stmoe::KernelTable<Kernels>::entry(::stmoe::Device::device) =                       \
        &stmoe_kernels_##Kernels##_##device;                                              \
    return true;                                                                          \
  }();
