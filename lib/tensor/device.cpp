// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/device.h"

#include <utility>
#include <vector>

namespace stmoe {
namespace {

const void* find_entry(const KernelTable& table, Device device) {
  const auto& entries = table.entries[static_cast<int>(device)];
  for (int level = static_cast<int>(cpu_level()); level >= 0; --level)
    if (entries[level]) return entries[level];
  return nullptr;
}

// Not planning: `plan`.
thread_local Device planned = Device::plan;

const void* find_planned(const KernelTable& table) {
  if (planned == Device::cuda)
    for (Device device : {Device::cuda, Device::emu})
      if (const void* found = find_entry(table, device)) return found;
  return find_entry(table, Device::plan);
}

}  // namespace

PlanScope::PlanScope(Device device) : before_(std::exchange(planned, device)) {}
PlanScope::~PlanScope() { planned = before_; }
bool is_planning() { return planned != Device::plan; }
Device layout_device(Device device) { return is_planning() ? planned : device; }

std::string_view name_of(Device device) {
  static constexpr std::string_view kNames[] = {"cpu", "emu", "cuda", "plan"};
  return kNames[static_cast<int>(device)];
}

void register_kernels(KernelTable& table, Device device, CpuLevel level, const void* kernels) {
  table.entries[static_cast<int>(device)][static_cast<int>(level)] = kernels;
}

bool has_kernels(const KernelTable& table, Device device) {
  return find_entry(table, device) != nullptr;
}

const void* find_kernels(const KernelTable& table, Device device, const char* op,
                         const void* idle) {
  if (is_planning()) device = Device::plan;
  const void* found = device == Device::plan ? find_planned(table) : find_entry(table, device);
  if (!found && device == Device::plan) found = idle;
  if (found) return found;
  std::vector<std::string_view> known;
  for (Device other : {Device::cpu, Device::emu, Device::cuda})
    if (find_entry(table, other)) known.push_back(name_of(other));
  throw BugError(format("{}: there is no kernel for device {}; there are kernels for: {}", op,
                        name_of(device), fmt::join(known, ", ")));
}

}  // namespace stmoe
