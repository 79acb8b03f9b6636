// SPDX-License-Identifier: Apache-2.0
// What a plan is made for: this machine, or a GPU by name. The memory that a process may take
// there, and how fast it can be at most.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/tensor/device.h"
#include "lib/tensor/dtype.h"

namespace stmoe {

// The machine's memory, or the control group's limit where that is lower; 0 where unknown. `root`
// is "/", or a copy of /proc and /sys in tests.
int64_t available_memory_bytes(const std::filesystem::path& root = "/");

struct MachineSpeed {
  double product_flops_per_second = 0;  // for the type, on all compute threads
  double memory_bytes_per_second = 0;
};
// Takes a third of a second, and 192 MiB for a moment (on a GPU up to 2 GiB).
MachineSpeed measure_machine_speed(DType dtype, Device device = Device::cpu);

struct Machine {
  std::string name;             // "this machine", or a GPU's
  Device device = Device::cpu;  // cpu or cuda
  int64_t memory_bytes = 0;     // for one process; 0: unknown
  MachineSpeed speed;           // for the type it was asked for
};
// `device`: cpu, or cuda where a GPU answers.
Machine this_machine(DType dtype, Device device = Device::cpu);
// A GPU that need not be here, by its maker's figures (dense products, no structured sparsity; f32
// without tensor cores) and the memory that its driver leaves. Throws UsageError listing the names.
Machine named_machine(std::string_view name, DType dtype);
const std::vector<std::string>& machine_names();

}  // namespace stmoe
