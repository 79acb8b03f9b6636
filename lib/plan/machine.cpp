// SPDX-License-Identifier: Apache-2.0
#include "lib/plan/machine.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "lib/base/registry.h"
#include "lib/ops/memory_peak.h"
#include "lib/ops/product_peak.h"
#include "lib/tensor/device_memory.h"

namespace stmoe {
namespace {

using Folder = std::filesystem::path;

// The number in a file of one, or 0: "max" and files that are not there set no limit.
int64_t number_in(const Folder& file) {
  std::ifstream stream(file);
  int64_t value = 0;
  return stream >> value && value > 0 ? value : 0;
}

int64_t total_memory(const Folder& root) {
  std::ifstream stream(root / "proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (stream >> name >> kib >> unit)
    if (name == "MemTotal:") return kib * 1024;
  return 0;
}

// The lowest limit of a control group and those above it.
int64_t lowest_limit(const Folder& base, Folder group, const char* file) {
  int64_t lowest = 0;
  for (group = group.relative_path();; group = group.parent_path()) {
    const int64_t limit = number_in(base / group / file);
    if (limit > 0 && (lowest == 0 || limit < lowest)) lowest = limit;
    if (group.empty()) return lowest;
  }
}

// Version 2 has one hierarchy, "0::/path"; version 1 one for memory, "4:memory:/path". In a
// container the path may be the host's; the limit is then at the top.
int64_t group_limit(const Folder& root) {
  std::ifstream stream(root / "proc/self/cgroup");
  const Folder base = root / "sys/fs/cgroup";
  int64_t lowest = 0;
  for (std::string line; std::getline(stream, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string kinds = line.substr(first + 1, second - first - 1);
    const Folder group = line.substr(second + 1);
    int64_t limit = 0;
    if (kinds.empty()) limit = lowest_limit(base, group, "memory.max");
    if (kinds == "memory") limit = lowest_limit(base / "memory", group, "memory.limit_in_bytes");
    if (limit > 0 && (lowest == 0 || limit < lowest)) lowest = limit;
  }
  return lowest;
}

}  // namespace

int64_t available_memory_bytes(const Folder& root) {
  const int64_t total = total_memory(root), limit = group_limit(root);
  return limit > 0 && (total == 0 || limit < total) ? limit : total;
}

MachineSpeed measure_machine_speed(DType dtype, Device device) {
  return {measure_product_peak(dtype, 0.2, device), measure_memory_bandwidth(0.1, device)};
}

Machine this_machine(DType dtype, Device device) {
  const int64_t memory = is_host_memory(device) ? available_memory_bytes()
                                                : kernels<DeviceMemoryKernels>(device).total();
  return {"this machine", device, memory, measure_machine_speed(dtype, device)};
}

namespace {

struct Gpu {
  const char* name;
  double memory_gib, bf16_flops, f32_flops, bytes;
};
constexpr Gpu kGpus[] = {{"h200", 139, 989e12, 67e12, 4.8e12},
                         {"h100-80gb", 79, 989e12, 67e12, 3.35e12},
                         {"a100-80gb", 79, 312e12, 19.5e12, 2.039e12},
                         {"a100-40gb", 39, 312e12, 19.5e12, 1.555e12}};

}  // namespace

Machine named_machine(std::string_view name, DType dtype) {
  for (const Gpu& gpu : kGpus)
    if (name == gpu.name)
      return {gpu.name,
              Device::cuda,
              static_cast<int64_t>(gpu.memory_gib * 0x1p30),
              {dtype == DType::bf16 ? gpu.bf16_flops : gpu.f32_flops, gpu.bytes}};
  fail_unknown_name("machine", name, machine_names());
}

const std::vector<std::string>& machine_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Gpu& gpu : kGpus) all.emplace_back(gpu.name);
    return all;
  }();
  return names;
}

}  // namespace stmoe
