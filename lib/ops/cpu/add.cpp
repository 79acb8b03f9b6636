// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/add.h"

#include <numeric>

#include "lib/ops/cpu/elementwise.h"

namespace stmoe {
namespace {

void add_cpu(const Tensor& y, const Tensor& a, const Tensor& b) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        y.numel(), y.data<T>(), [](C p, C q) { return p + q; }, a.data<T>(), b.data<T>());
  });
}

void multiply_cpu(const Tensor& y, const Tensor& a, const Tensor& b) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        y.numel(), y.data<T>(), [](C p, C q) { return p * q; }, a.data<T>(), b.data<T>());
  });
}

void scale_cpu(const Tensor& y, const Tensor& x, double c) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    map_elements(
        y.numel(), y.data<T>(), [factor = static_cast<C>(c)](C p) { return factor * p; },
        x.data<T>());
  });
}

void weighted_sum_cpu(const Tensor& y, std::span<const Tensor> terms,
                      std::span<const double> coefficients) {
  double total = 0;
  for (size_t i = 0; i < terms.size(); ++i) total += coefficients[i] * terms[i].item();
  y.fill(total);
}

// A function of its own: in a lambda, a captured pointer would be gathered anew for every element.
template <class T>
double sum_of(const T* x, int64_t count) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < count; ++i) total += static_cast<Compute<T>>(x[i]);
  return total;
}

// Sums of fixed chunks, added in their order.
void sum_cpu(const Tensor& y, const Tensor& x) {
  constexpr int64_t kChunk = 1 << 14;
  std::vector<double> partial(static_cast<size_t>(num_chunks(x.numel(), kChunk)));
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* values = x.data<T>();
    parallel_for(x.numel(), kChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
      partial[static_cast<size_t>(chunk)] = sum_of(values + begin, end - begin);
    });
  });
  y.fill(std::accumulate(partial.begin(), partial.end(), 0.0));
}

void spread_cpu(const Tensor& y, const Tensor& value) { y.fill(value.item()); }

STMOE_REGISTER_KERNELS(AddKernels, cpu,
                       {add_cpu, multiply_cpu, scale_cpu, weighted_sum_cpu, sum_cpu, spread_cpu})

}  // namespace

}  // namespace stmoe
