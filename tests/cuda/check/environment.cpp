// SPDX-License-Identifier: Apache-2.0
// What everything else is held against: bandwidths and the product of 8192 rows, and what is there.
#include <algorithm>

#include "lib/optim/gradients.h"
#include "lib/tensor/device_info.h"
#include "lib/tensor/device_memory.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {
namespace {

void time_copies(const Settings& settings, Report& report, int64_t bytes) {
  const Device device = settings.device;
  const int64_t count = bytes / 4;
  const Tensor from = random_tensor({count}, DType::f32, device, settings.seed);
  const Tensor to = Tensor::empty_on_heap({count}, DType::f32, device);
  auto add = [&](const char* name, double moved, const Timing& timing) {
    Json values = to_json(timing);
    values["bytes"] = moved;
    values["bytes_per_second"] = moved / timing.median;
    report.line(name, values, "bytes/s");
  };
  const auto size = static_cast<double>(count * 4);
  add("copy", 2 * size, time_on(device, [&] { to.copy_from(from); }));
  add("write", size, time_on(device, [&] { to.fill(1); }));
  add("read", size, time_on(device, [&] { sum_of_squares(from); }));
}

// Between the host and the device, by the host's clock.
void time_transfers(const Settings& settings, Report& report, int64_t bytes) {
  const Tensor host = random_tensor({bytes / 4}, DType::f32, Device::cpu, settings.seed);
  const Tensor back = Tensor::empty_like(host);
  const Tensor there = Tensor::empty_on_heap(host.shape(), DType::f32, settings.device);
  auto add = [&](const char* name, const Tensor& to, const Tensor& from) {
    double best = 1e30;
    for (int i = 0; i < 4; ++i) {
      wait_for(settings.device);
      const Stopwatch watch;
      to.copy_from(from);
      wait_for(settings.device);
      best = std::min(best, watch.seconds());
    }
    report.line(name, {{"bytes", bytes}, {"bytes_per_second", static_cast<double>(bytes) / best}},
                "bytes/s");
  };
  add("host to device", there, host);
  add("device to host", back, there);
}

}  // namespace

void check_environment(const Settings& settings, Report& report) {
  const auto& memory = kernels<DeviceMemoryKernels>(settings.device);
  report.line("device", {{"description", device_description(settings.device)},
                         {"memory_bytes", memory.total()},
                         {"memory_used_bytes", memory.used()}});
  time_copies(settings, report, settings.is_tiny ? int64_t{1} << 16 : int64_t{2} << 30);
  time_transfers(settings, report, settings.is_tiny ? int64_t{1} << 16 : int64_t{1} << 28);
  report.line("product 8192", {{"flops_per_second", ceilings(settings.device).product}}, "FLOP/s");
}

}  // namespace stmoe::check
