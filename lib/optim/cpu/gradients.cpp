// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include "lib/optim/cpu/squares.h"

namespace stmoe {
namespace {

// A function of its own, as squares_of is.
template <class T>
void multiply(T* __restrict x, Compute<T> factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(static_cast<Compute<T>>(x[i]) * factor);
}

double sum_of_squares_of(const Tensor& values) {
  double sum = 0;
  visit_floating(values.dtype(), [&](auto tag) {
    const auto* x = values.data<decltype(tag)>();
    sum = sum_of_chunks(values.numel(), [=](int64_t begin, int64_t end) {
      return squares_of(x + begin, end - begin);
    });
  });
  return sum;
}

void sums_of_squares_cpu(const Tensor& sums, std::span<const Tensor> values) {
  double* results = sums.data<double>();
  for (const Tensor& one : values) *results++ = sum_of_squares_of(one);
}

void scale_cpu(const Tensor& values, double factor) {
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_for(values.numel(), kSquaresChunk, [&](int64_t begin, int64_t end) {
      multiply(values.data<T>() + begin, static_cast<Compute<T>>(factor), end - begin);
    });
  });
}

STMOE_REGISTER_KERNELS(GradientKernels, cpu, {sums_of_squares_cpu, scale_cpu})

}  // namespace
}  // namespace stmoe
