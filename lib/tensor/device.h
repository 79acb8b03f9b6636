// SPDX-License-Identifier: Apache-2.0
// Devices and per-device tables of kernels. An op's CPU and CUDA files register their kernels when
// the objects load; nothing else is edited to add a device or an op. CPU kernels are registered
// once per level (lib/base/cpu_level.h).
#pragma once

#include <string>
#include <string_view>

#include "lib/base/cpu_level.h"
#include "lib/base/error.h"
#include "lib/tensor/idle_kernels.h"

namespace stmoe {

// `emu` runs CUDA kernels on the host for tests; its memory is closed to all but kernels and copies
// (device_memory.h). On `plan` tensors have a shape and a type, but no memory behind them: they
// read as zeros, nobody may write them, and kernels do nothing. A step on it allocates what a step
// on the planned device allocates (lib/plan).
enum class Device : uint8_t { cpu, emu, cuda, plan };
inline constexpr int kNumDevices = 4;

std::string_view name_of(Device device);
// Host code may read it.
inline bool is_host_memory(Device device) {
  return device == Device::cpu || device == Device::plan;
}

// While one lives, this thread plans for a device, cpu or cuda: the kernels of every device are
// those of `plan`, and what host code allocates in passing on another device is zeros that take
// memory only where it is written. The kernels of a planned cuda are cuda's, or emu's where there
// are none: they allocate what they need, and what they would launch or copy does nothing.
class PlanScope {
 public:
  explicit PlanScope(Device planned = Device::cpu);
  ~PlanScope();
  PlanScope(const PlanScope&) = delete;
  PlanScope& operator=(const PlanScope&) = delete;

 private:
  Device before_;
};
bool is_planning();
// The device whose layout of memory a tensor's op must choose: the planned one for `plan`.
Device layout_device(Device device);

// Pointers to the op's `Kernels`, a plain struct of function pointers with `static constexpr const
// char* kOp`.
struct KernelTable {
  const void* entries[kNumDevices][kNumCpuLevels];
};
template <class Kernels>
inline constinit KernelTable kernel_table{};

void register_kernels(KernelTable& table, Device device, CpuLevel level, const void* kernels);
// The entry of the highest level up to cpu_level(), on `plan` else `idle`; throws BugError when
// there is none.
bool has_kernels(const KernelTable& table, Device device);
const void* find_kernels(const KernelTable& table, Device device, const char* op,
                         const void* idle = nullptr);

// The kernels of an op on a device. `plan` falls back to kernels that do nothing: only a CPU kernel
// that takes memory of its own (tensors, scratch) registers one for `plan`, which takes the same
// and computes nothing.
template <class Kernels>
const Kernels& kernels(Device device) {
  return *static_cast<const Kernels*>(
      find_kernels(kernel_table<Kernels>, device, Kernels::kOp, &idle_kernels<Kernels>));
}

}  // namespace stmoe

// What runs before main must run on any processor, also in a file compiled for AVX-512: so the
// entries are constants, and the function that registers them is compiled for plain x86-64.
#if defined(__x86_64__)
#define STMOE_RUNS_AT_START [[gnu::constructor, gnu::target("arch=x86-64")]]
#else
#define STMOE_RUNS_AT_START [[gnu::constructor]]
#endif

// STMOE_REGISTER_KERNELS(RmsNormKernels, cpu, {forward_cpu, backward_cpu})
#define STMOE_REGISTER_KERNELS(Kernels, device, ...)                                       \
  static constinit const Kernels stmoe_kernels_##Kernels##_##device = Kernels __VA_ARGS__; \
  STMOE_RUNS_AT_START static void stmoe_register_##Kernels##_##device() {                  \
    ::stmoe::register_kernels(::stmoe::kernel_table<Kernels>, ::stmoe::Device::device,     \
                              ::stmoe::CpuLevel::STMOE_CPU_LEVEL,                          \
                              &stmoe_kernels_##Kernels##_##device);                        \
  }
