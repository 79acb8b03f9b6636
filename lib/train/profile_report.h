// SPDX-License-Identifier: Apache-2.0
// A profile for people (tables) and for chrome://tracing or ui.perfetto.dev (a JSON trace).
#pragma once

#include <array>
#include <string>

#include "lib/base/files.h"
#include "lib/base/profile.h"
#include "lib/tensor/device.h"

namespace stmoe {

// What this machine can do at most, on all compute threads.
struct MachinePeaks {
  std::array<double, kProductTypes> product_flops_per_second{};  // by ProductType; 0: not measured
  double memory_bytes_per_second = 0;
};
// f32, bf16 and memory; about half a second, and 192 MiB for a moment.
MachinePeaks measure_machine_peaks(Device device = Device::cpu);

// The larger of two shares of what the machine can do: it is what bounds the work.
struct Reached {
  double share = 0;
  const char* of = "";  // "product peak", "memory" or "" when nothing was counted
};
Reached reached(const PassTime& time, const MachinePeaks& peaks);

// By op and pass, then products by shape; every figure per step.
std::string profile_table(const Profile& profile, const MachinePeaks& peaks);

// Complete events ("ph": "X"): steps, the ops in them, the products in those, and a second track
// for the data pipeline.
std::string chrome_trace(const Profile& profile);
constexpr size_t kMostTraceEvents = 100'000;  // about 20 MB
// Throws StorageError.
void write_trace(const Profile& profile, const Path& file);

}  // namespace stmoe
