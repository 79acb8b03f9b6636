// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/linear_cross_entropy.h"

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kRows = 64;  // of one chunk

template <class Y, class X>
void scale_row(Y* y, const X* x, Compute<X> factor, int64_t width) {
  for (int64_t d = 0; d < width; ++d) y[d] = static_cast<Y>(factor * static_cast<Compute<X>>(x[d]));
}

void gather_cpu(const Tensor& y_MD, const Tensor& x_ND, const Tensor& rows_M, double factor) {
  visit_floating(x_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const int64_t width = x_ND.dim(1);
    T* y = y_MD.data<T>();
    const T* x = x_ND.data<T>();
    const int32_t* rows = rows_M.defined() ? rows_M.data<int32_t>() : nullptr;
    parallel_for(y_MD.dim(0), kRows, [=](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m)
        scale_row(y + m * width, x + (rows ? rows[m] : m) * width, static_cast<Compute<T>>(factor),
                  width);
    });
  });
}

void scatter_cpu(const Tensor& dx_ND, const Tensor& dy_MD, const Tensor& rows_M, double factor) {
  visit_floating(dx_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    const int64_t width = dx_ND.dim(1);
    T* dx = dx_ND.data<T>();
    const C* dy = dy_MD.data<C>();
    const int32_t* rows = rows_M.defined() ? rows_M.data<int32_t>() : nullptr;
    parallel_for(dy_MD.dim(0), kRows, [=](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m)
        scale_row(dx + (rows ? rows[m] : m) * width, dy + m * width, static_cast<C>(factor), width);
    });
  });
}

void rescale_cpu(const Tensor& gradient, const Tensor& dtotal, double expected) {
  const double ratio = dtotal.item() / expected;
  if (ratio == 1) return;
  visit_floating(gradient.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* values = gradient.data<T>();
    constexpr int64_t kValues = 1 << 14;
    parallel_for(gradient.numel(), kValues, [=](int64_t begin, int64_t end) {
      scale_row(values + begin, values + begin, static_cast<Compute<T>>(ratio), end - begin);
    });
  });
}

STMOE_REGISTER_KERNELS(LinearCrossEntropyKernels, cpu, {gather_cpu, scatter_cpu, rescale_cpu})

}  // namespace
}  // namespace stmoe
