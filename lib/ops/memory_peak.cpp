// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/memory_peak.h"

#include <algorithm>

#include "lib/base/clock.h"
#include "lib/base/threads.h"
#include "lib/ops/device_peak.h"
#include "lib/tensor/tensor.h"

namespace stmoe {
namespace {

constexpr int64_t kElements = int64_t{1} << 24, kChunk = int64_t{1} << 18;

void triad(float* a, const float* b, const float* c, int64_t count) {
  for (int64_t i = 0; i < count; ++i) a[i] = b[i] + 0.5f * c[i];
}

}  // namespace

double measure_memory_bandwidth(double seconds, Device device) {
  if (!is_host_memory(device)) return measure_device_memory_bandwidth(seconds, device);
  const Tensor arrays[] = {Tensor::persistent({kElements}, DType::f32),
                           Tensor::persistent({kElements}, DType::f32),
                           Tensor::persistent({kElements}, DType::f32)};
  float *a = arrays[0].data<float>(), *b = arrays[1].data<float>(), *c = arrays[2].data<float>();
  double best = 0;
  const Stopwatch whole;
  for (int pass = 0; pass < 3 || whole.seconds() < seconds; ++pass) {
    const Stopwatch watch;
    parallel_for(kElements, kChunk, [&](int64_t begin, int64_t end) {
      triad(a + begin, b + begin, c + begin, end - begin);
    });
    best = std::max(best, 3.0 * sizeof(float) * kElements / watch.seconds());
  }
  return best;
}

}  // namespace stmoe
