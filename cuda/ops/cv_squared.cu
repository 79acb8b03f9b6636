// SPDX-License-Identifier: Apache-2.0
// One block: a value an expert.
#include "cuda/device/vector.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/cv_squared.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

struct Moments {
  double mean, variance;
  STMOE_METHOD double scale() const { return mean * mean + 1e-10; }
  STMOE_METHOD double cv_squared() const { return variance / scale(); }
};

// The same in every thread of the block; `shared`: two memories of block_sum.
template <class T>
STMOE_DEVICE Moments moments_of(const T* x, int64_t count, double* shared) {
  double sum = 0, squares = 0;
  for (int64_t e = thread_index(); e < count; e += block_threads())
    sum += static_cast<double>(x[e]);
  const double mean = block_sum(sum, shared) / static_cast<double>(count);
  for (int64_t e = thread_index(); e < count; e += block_threads()) {
    const double difference = static_cast<double>(x[e]) - mean;
    squares += difference * difference;
  }
  return {mean, block_sum(squares, shared + kWarp) / static_cast<double>(count)};
}

template <class T>
STMOE_KERNEL write_value(T* y, const T* x, int64_t count) {
  STMOE_SHARED(double, shared, 2 * kWarp);
  const Moments moments = moments_of(x, count, shared);
  if (thread_index() == 0) *y = static_cast<T>(moments.cv_squared());
}

template <class T>
STMOE_KERNEL write_gradient(T* dx, const T* dy, const T* x, int64_t count) {
  STMOE_SHARED(double, shared, 2 * kWarp);
  const Moments moments = moments_of(x, count, shared);
  const double factor =
      static_cast<double>(*dy) * 2.0 / (static_cast<double>(count) * moments.scale());
  for (int64_t e = thread_index(); e < count; e += block_threads()) {
    const double difference = static_cast<double>(x[e]) - moments.mean;
    dx[e] = static_cast<T>(factor * (difference - moments.cv_squared() * moments.mean));
  }
}

void forward(const Tensor& y, const Tensor& x_E) {
  visit_wide(x_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(write_value<T>, {}, kThreads, 0, y.data<T>(), x_E.data<T>(), x_E.numel());
  });
}

void backward(const Tensor& dx_E, const Tensor& dy, const Tensor& x_E) {
  visit_wide(x_E.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(write_gradient<T>, {}, kThreads, 0, dx_E.data<T>(), dy.data<T>(), x_E.data<T>(),
           x_E.numel());
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(CvSquaredKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
