// SPDX-License-Identifier: Apache-2.0
// A run is several calls between two waits, so that what a wait costs is shared.
#include "lib/ops/device_peak.h"

#include <algorithm>

#include "lib/base/clock.h"
#include "lib/base/random.h"
#include "lib/ops/product.h"

namespace stmoe {
namespace {

constexpr int kCalls = 8;

// Zeros would draw less power than data and so run faster: rows of random values.
Tensor random_matrix(int64_t size, DType dtype, Device device) {
  const Tensor row = Tensor::empty({1, size}, DType::f32);
  auto values = row.span<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = random_uniform(RandomKey{1}, i) - 0.5f;
  const Tensor there = row.to(dtype).on(device),
               matrix = Tensor::empty({size, size}, dtype, device);
  for (int64_t r = 0; r < size; ++r) matrix.slice(0, r, r + 1).copy_from(there);
  return matrix;
}

// The seconds of one call, of the fastest run.
template <class Call>
double fastest(double seconds, const Tensor& result, Call&& call) {
  const auto wait = [&] { result.reshape({-1}).slice(0, 0, 1).item(); };
  call();
  wait();
  double best = 1e30;
  const Stopwatch whole;
  do {
    const Stopwatch watch;
    for (int i = 0; i < kCalls; ++i) call();
    wait();
    best = std::min(best, watch.seconds() / kCalls);
  } while (whole.seconds() < seconds);
  return best;
}

}  // namespace

double measure_device_product_peak(DType dtype, double seconds, Device device) {
  const int64_t size = device == Device::emu ? 64 : dtype == DType::bf16 ? 8192 : 4096;
  const Tensor a = random_matrix(size, dtype, device), b = random_matrix(size, dtype, device);
  const Tensor c = Tensor::empty_like(a);
  const double one =
      fastest(seconds, c, [&] { product(matrix_view(c), matrix_view(a), matrix_view(b)); });
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / one;
}

double measure_device_memory_bandwidth(double seconds, Device device) {
  const int64_t elements = device == Device::emu ? int64_t{1} << 14 : int64_t{1} << 28;
  const Tensor from = Tensor::zeros({elements}, DType::f32, device), to = Tensor::empty_like(from);
  return 2 * static_cast<double>(to.bytes()) / fastest(seconds, to, [&] { to.copy_from(from); });
}

}  // namespace stmoe
