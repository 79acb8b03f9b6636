// SPDX-License-Identifier: Apache-2.0
// Each loop keeps kSums independent sums, enough to hide the latency of a multiply-add on two
// units. The value that a loop returns depends on every sum, so that none is optimised away.
#include "lib/ops/product_peak.h"

#include <algorithm>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/cpu_level.h"
#include "lib/base/threads.h"
#include "lib/ops/device_peak.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stmoe {
namespace {

constexpr int kSums = 16, kRounds = 1 << 13;

struct Loop {
  double (*run)();  // kRounds rounds of kSums multiply-adds
  double flops;     // of one run
};

template <class T>
double portable_loop() {
  T sums[kSums * 4];
  std::fill(std::begin(sums), std::end(sums), T{1});
  for (int round = 0; round < kRounds; ++round)
    for (T& sum : sums) sum = sum * T{0.999f} + T{0.5f};
  double total = 0;
  for (T sum : sums) total += static_cast<double>(sum);
  return total;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) double f32_avx512_loop() {
  __m512 sums[kSums];
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.5f);
  for (auto& sum : sums) sum = a;
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_fmadd_ps(sums[i], a, b);
  float total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) total += _mm512_cvtss_f32(sums[i]);
  return total;
}

__attribute__((target("avx512f"))) double f64_avx512_loop() {
  __m512d sums[kSums];
  const __m512d a = _mm512_set1_pd(0.999), b = _mm512_set1_pd(0.5);
  for (auto& sum : sums) sum = a;
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_fmadd_pd(sums[i], a, b);
  double total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) total += _mm512_cvtsd_f64(sums[i]);
  return total;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512_loop() {
  __m512 sums[kSums];
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3C003C00), b = a;
  for (auto& sum : sums) sum = _mm512_set1_ps(0.5f);
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  float total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) total += _mm512_cvtss_f32(sums[i]);
  return total;
}

// Twelve of the sixteen vector registers hold sums.
constexpr int kSumsAvx2 = 12;

__attribute__((target("avx2,fma"))) double f32_avx2_loop() {
  __m256 sums[kSumsAvx2];
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.5f);
  for (auto& sum : sums) sum = a;
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < kSumsAvx2; ++i) sums[i] = _mm256_fmadd_ps(sums[i], a, b);
  float total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSumsAvx2; ++i) total += _mm256_cvtss_f32(sums[i]);
  return total;
}

__attribute__((target("avx2,fma"))) double f64_avx2_loop() {
  __m256d sums[kSumsAvx2];
  const __m256d a = _mm256_set1_pd(0.999), b = _mm256_set1_pd(0.5);
  for (auto& sum : sums) sum = a;
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int i = 0; i < kSumsAvx2; ++i) sums[i] = _mm256_fmadd_pd(sums[i], a, b);
  double total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kSumsAvx2; ++i) total += _mm256_cvtsd_f64(sums[i]);
  return total;
}
#endif

Loop loop_for(DType dtype) {
#if defined(__x86_64__)
  constexpr double kRun = 2.0 * kRounds * kSums, kRunAvx2 = 2.0 * kRounds * kSumsAvx2;
  const CpuLevel level = cpu_level();
  if (dtype == DType::bf16 && level >= CpuLevel::avx512_bf16) return {bf16_avx512_loop, 32 * kRun};
  if (level >= CpuLevel::avx512)
    return dtype == DType::f64 ? Loop{f64_avx512_loop, 8 * kRun} : Loop{f32_avx512_loop, 16 * kRun};
  if (level >= CpuLevel::avx2)
    return dtype == DType::f64 ? Loop{f64_avx2_loop, 4 * kRunAvx2}
                               : Loop{f32_avx2_loop, 8 * kRunAvx2};
#endif
  const double flops = 2.0 * kRounds * kSums * 4;
  return dtype == DType::f64 ? Loop{portable_loop<double>, flops}
                             : Loop{portable_loop<float>, flops};
}

}  // namespace

double measure_product_peak(DType dtype, double seconds, Device device) {
  if (!is_host_memory(device)) return measure_device_product_peak(dtype, seconds, device);
  const Loop loop = loop_for(dtype);
  std::vector<double> best(static_cast<size_t>(num_threads()), 0.0);
  const Stopwatch whole;
  // One chunk per thread: a thread is busy with its own chunk until all time is over, so none takes
  // two.
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t) {
    volatile double kept = 0;
    while (whole.seconds() < seconds || best[static_cast<size_t>(begin)] == 0) {
      const Stopwatch watch;
      int runs = 0;
      for (; watch.seconds() < 1e-3; ++runs) kept = kept + loop.run();
      double& most = best[static_cast<size_t>(begin)];
      most = std::max(most, runs * loop.flops / watch.seconds());
    }
  });
  double total = 0;
  for (double rate : best) total += rate;
  return total;
}

}  // namespace stmoe
