// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include <numeric>
#include <vector>

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 15;

// Inner loops are functions of their own: in a lambda, captured pointers would be read again for
// every element. Squares are summed in f64: at memory speed, without overflow or lost small terms.
template <class T>
double squares_of(const T* __restrict x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(static_cast<Compute<T>>(x[i]));
    sum += value * value;
  }
  return sum;
}

template <class T>
void multiply(T* __restrict x, Compute<T> factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(static_cast<Compute<T>>(x[i]) * factor);
}

double sum_of_squares_of(const Tensor& values) {
  std::vector<double> partial(static_cast<size_t>(num_chunks(values.numel(), kChunk)));
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_for(values.numel(), kChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
      partial[static_cast<size_t>(chunk)] = squares_of(values.data<T>() + begin, end - begin);
    });
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

void sums_of_squares_cpu(const Tensor& sums, std::span<const Tensor> values) {
  double* results = sums.data<double>();
  for (const Tensor& one : values) *results++ = sum_of_squares_of(one);
}

void scale_cpu(const Tensor& values, double factor) {
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_for(values.numel(), kChunk, [&](int64_t begin, int64_t end) {
      multiply(values.data<T>() + begin, static_cast<Compute<T>>(factor), end - begin);
    });
  });
}

STMOE_REGISTER_KERNELS(GradientKernels, cpu, {sums_of_squares_cpu, scale_cpu})

}  // namespace
}  // namespace stmoe
