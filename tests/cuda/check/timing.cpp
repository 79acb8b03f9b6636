// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "lib/base/random.h"
#include "lib/ops/device_peak.h"
#include "lib/tensor/device_memory.h"
#include "tests/cuda/check/check.h"
#if STMOE_HAVE_CUDA
#include "cuda/runtime/event.h"
#include "cuda/runtime/gpu.h"
#endif

namespace stmoe::check {
namespace {

constexpr double kSampleSeconds = 2e-3, kMostSeconds = 2.0;
constexpr int kSamples = 21;

double seconds_by_clock(Device device, const std::function<void()>& work) {
  wait_for(device);
  const Stopwatch watch;
  work();
  wait_for(device);
  return watch.seconds();
}

#if STMOE_HAVE_CUDA
// Work that keeps the device busy while the host asks for what is timed.
void keep_busy(int64_t calls) {
  static const Tensor block = Tensor::persistent({int64_t{1} << 26}, DType::f32, Device::cuda);
  for (int64_t i = 0; i < 4 + calls / 4; ++i) block.fill(0);
}

double seconds_by_events(int64_t calls, const std::function<void()>& work) {
  gpu::Event begin(gpu::Event::Kind::time), end(gpu::Event::Kind::time);
  keep_busy(calls);
  begin.record(gpu::stream());
  work();
  end.record(gpu::stream());
  end.wait();
  return 1e-3 * end.milliseconds_since(begin);
}
#endif

double sample(Device device, int64_t calls, const std::function<void()>& call) {
  const auto work = [&] {
    for (int64_t i = 0; i < calls; ++i) call();
  };
#if STMOE_HAVE_CUDA
  if (device == Device::cuda) return seconds_by_events(calls, work) / static_cast<double>(calls);
#endif
  return seconds_by_clock(device, work) / static_cast<double>(calls);
}

}  // namespace

void wait_for(Device device) {
  if (!is_host_memory(device)) kernels<DeviceMemoryKernels>(device).wait();
}

Timing time_on(Device device, const std::function<void()>& call) {
  call();
  const double once = seconds_by_clock(device, call);
  Timing timing;
  timing.calls = std::clamp<int64_t>(static_cast<int64_t>(kSampleSeconds / once), 1, 64);
  const int samples = device == Device::cuda ? kSamples : 3;
  std::vector<double> seconds;
  const Stopwatch watch;
  while (static_cast<int>(seconds.size()) < samples &&
         (seconds.size() < 3 || watch.seconds() < kMostSeconds))
    seconds.push_back(sample(device, timing.calls, call));
  std::sort(seconds.begin(), seconds.end());
  timing.median = seconds[seconds.size() / 2];
  timing.least = seconds.front();
  timing.most = seconds.back();
  return timing;
}

Json to_json(const Timing& timing) {
  return {{"seconds", timing.median},
          {"least_seconds", timing.least},
          {"most_seconds", timing.most},
          {"calls_per_sample", timing.calls}};
}

const Ceilings& ceilings(Device device) {
  static const Ceilings measured = [&] {
    const double seconds = device == Device::cuda ? 1.0 : 0.01;
    return Ceilings{measure_device_memory_bandwidth(seconds, device),
                    measure_device_product_peak(DType::bf16, seconds, device)};
  }();
  return measured;
}

Tensor random_tensor(const Shape& shape, DType dtype, Device device, uint64_t seed) {
  const Tensor result = Tensor::empty_on_heap(shape, dtype, device);
  const int64_t count = result.numel(), first = std::min(count, int64_t{1} << 20);
  if (count == 0) return result;
  const Tensor values = Tensor::empty_on_heap({first}, DType::f32);
  auto span = values.span<float>();
  for (size_t i = 0; i < span.size(); ++i) span[i] = random_uniform(RandomKey{seed}, i) - 0.5f;
  const Tensor flat = result.reshape({-1});
  flat.slice(0, 0, first).copy_from(values.to(dtype).on(device));
  for (int64_t done = first; done < count;) {
    const int64_t more = std::min(done, count - done);
    flat.slice(0, done, done + more).copy_from(flat.slice(0, 0, more));
    done += more;
  }
  return result;
}

}  // namespace stmoe::check
