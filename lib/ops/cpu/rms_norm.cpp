// SPDX-License-Identifier: Apache-2.0
// With r = rsqrt(mean(x^2) + eps) and g = dy * scale:  dx = r g - x r^3 mean(g x),  dscale = sum
// over rows of dy x r.
#include "lib/ops/rms_norm.h"

#include <cmath>

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kRows = 32;  // of one chunk: borders do not depend on the threads

template <class T>
void forward_row(T* y, Compute<T>* rstd, const T* x, const Compute<T>* scale, int64_t width,
                 double eps) {
  using C = Compute<T>;
  C squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t d = 0; d < width; ++d) squares += static_cast<C>(x[d]) * static_cast<C>(x[d]);
  const C r = 1 / std::sqrt(squares / static_cast<C>(width) + static_cast<C>(eps));
  *rstd = r;
#pragma GCC ivdep
  for (int64_t d = 0; d < width; ++d) y[d] = static_cast<T>(static_cast<C>(x[d]) * r * scale[d]);
}

// Adds the row's part of dscale to `dscale`. dx may be dy.
template <class T>
void backward_row(T* dx, Compute<T>* dscale, const T* dy, const T* x, const Compute<T>* scale,
                  Compute<T> r, int64_t width) {
  using C = Compute<T>;
  C dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t d = 0; d < width; ++d)
    dot += static_cast<C>(dy[d]) * scale[d] * static_cast<C>(x[d]);
  const C c = dot * r * r * r / static_cast<C>(width);
#pragma GCC ivdep
  for (int64_t d = 0; d < width; ++d) {
    const C gradient = static_cast<C>(dy[d]), value = static_cast<C>(x[d]);
    dscale[d] += gradient * value * r;
    dx[d] = static_cast<T>(gradient * scale[d] * r - value * c);
  }
}

void forward_cpu(const Tensor& y_ND, const Tensor& rstd_N, const Tensor& x_ND,
                 const Tensor& scale_D, double eps) {
  visit_floating(x_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    const int64_t width = x_ND.dim(1);
    T* y = y_ND.data<T>();
    C* rstd = rstd_N.data<C>();
    const T* x = x_ND.data<T>();
    const C* scale = scale_D.data<C>();
    parallel_for(x_ND.dim(0), kRows, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        forward_row(y + n * width, rstd + n, x + n * width, scale, width, eps);
    });
  });
}

void backward_cpu(const Tensor& dx_ND, const Tensor& dscale_D, const Tensor& dy_ND,
                  const Tensor& x_ND, const Tensor& scale_D, const Tensor& rstd_N) {
  visit_floating(x_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    const int64_t rows = x_ND.dim(0), width = x_ND.dim(1), chunks = num_chunks(rows, kRows);
    const Tensor partial = Tensor::zeros({chunks, width}, kDTypeOf<C>);
    T* dx = dx_ND.data<T>();
    const T *dy = dy_ND.data<T>(), *x = x_ND.data<T>();
    const C *scale = scale_D.data<C>(), *rstd = rstd_N.data<C>();
    C* sums = partial.data<C>();
    parallel_for(rows, kRows, [=](int64_t begin, int64_t end, int64_t chunk) {
      for (int64_t n = begin; n < end; ++n)
        backward_row(dx + n * width, sums + chunk * width, dy + n * width, x + n * width, scale,
                     rstd[n], width);
    });
    dscale_D.fill(0);
    C* dscale = dscale_D.data<C>();
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t d = 0; d < width; ++d) dscale[d] += sums[chunk * width + d];
  });
}

STMOE_REGISTER_KERNELS(RmsNormKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
