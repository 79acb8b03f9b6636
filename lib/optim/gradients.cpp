// SPDX-License-Identifier: Apache-2.0
#include "lib/optim/gradients.h"

#include <cmath>
#include <vector>

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 15;

struct GradientKernels {
  static constexpr const char* kOp = "gradients";
  double (*sum_of_squares)(const Tensor& values);
  void (*scale)(const Tensor& values, double factor);
};

double sum_of_squares_cpu(const Tensor& values) {
  std::vector<double> partial(static_cast<size_t>(num_chunks(values.numel(), kChunk)));
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = values.data<T>();
    parallel_for(values.numel(), kChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
      // Short f32 runs, summed in f64: vector speed without losing small terms.
      double total = 0;
      for (int64_t run = begin; run < end; run += 1024) {
        Compute<T> sum = 0;
        const int64_t stop = std::min(end, run + 1024);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = run; i < stop; ++i) {
          const auto value = static_cast<Compute<T>>(x[i]);
          sum += value * value;
        }
        total += static_cast<double>(sum);
      }
      partial[static_cast<size_t>(chunk)] = total;
    });
  });
  double total = 0;
  for (double part : partial) total += part;
  return total;
}

void scale_cpu(const Tensor& values, double factor) {
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* x = values.data<T>();
    const auto c = static_cast<Compute<T>>(factor);
    parallel_for(values.numel(), kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        x[i] = static_cast<T>(static_cast<Compute<T>>(x[i]) * c);
    });
  });
}

STMOE_REGISTER_KERNELS(GradientKernels, cpu, {sum_of_squares_cpu, scale_cpu})

}  // namespace

double sum_of_squares(const Tensor& values) {
  STMOE_CHECK(values.is_contiguous(), "sum_of_squares: strided values");
  return kernels<GradientKernels>(values.device()).sum_of_squares(values);
}

double global_gradient_norm(const ParameterList& parameters) {
  double total = 0;
  for (const Parameter& parameter : parameters)
    if (parameter.value.grad().defined()) total += sum_of_squares(parameter.value.grad());
  return std::sqrt(total);
}

void scale_gradients(const ParameterList& parameters, double factor) {
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad().defined()) continue;
    // The tape may have left one buffer as the gradient of two values.
    if (parameter.value.grad().is_shared())
      parameter.value.set_grad(parameter.value.grad().clone());
    kernels<GradientKernels>(parameter.value.device()).scale(parameter.value.grad(), factor);
  }
}

std::optional<std::string> first_non_finite_gradient(const ParameterList& parameters) {
  for (const Parameter& parameter : parameters)
    if (parameter.value.grad().defined() && !std::isfinite(sum_of_squares(parameter.value.grad())))
      return parameter.name;
  return std::nullopt;
}

void clear_gradients(const ParameterList& parameters) {
  for (const Parameter& parameter : parameters) parameter.value.clear_grad();
}

}  // namespace stmoe
