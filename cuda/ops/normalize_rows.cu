// SPDX-License-Identifier: Apache-2.0
#include "cuda/runtime/launch.h"
#include "lib/ops/normalize_rows.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// A thread for each row: rows are a few choices long, neighbours' rows share their lines.
template <class T>
STMOE_KERNEL normalize(T* y_NK, T* total_N, const T* x_NK, int64_t rows, int64_t k) {
  const int64_t n = block_index() * kThreads + thread_index();
  if (n < rows) {
    const T* x = x_NK + n * k;
    T total = 0;
    for (int64_t j = 0; j < k; ++j) total += x[j];
    total += static_cast<T>(1e-9);
    total_N[n] = total;
    for (int64_t j = 0; j < k; ++j) y_NK[n * k + j] = x[j] / total;
  }
}

template <class T>
STMOE_KERNEL normalize_gradient(T* dx_NK, const T* dy_NK, const T* y_NK, const T* total_N,
                                int64_t rows, int64_t k) {
  const int64_t n = block_index() * kThreads + thread_index();
  if (n < rows) {
    const T *dy = dy_NK + n * k, *y = y_NK + n * k;
    T dot = 0;
    for (int64_t j = 0; j < k; ++j) dot += dy[j] * y[j];
    for (int64_t j = 0; j < k; ++j) dx_NK[n * k + j] = (dy[j] - dot) / total_N[n];
  }
}

template <class T>
void forward_typed(const Tensor& y_NK, const Tensor& total_N, const Tensor& x_NK) {
  launch(normalize<T>, blocks_for(x_NK.dim(0), kThreads), kThreads, 0, y_NK.data<T>(),
         total_N.data<T>(), x_NK.data<T>(), x_NK.dim(0), x_NK.dim(1));
}

template <class T>
void backward_typed(const Tensor& dx_NK, const Tensor& dy_NK, const Tensor& y_NK,
                    const Tensor& total_N) {
  launch(normalize_gradient<T>, blocks_for(y_NK.dim(0), kThreads), kThreads, 0, dx_NK.data<T>(),
         dy_NK.data<T>(), y_NK.data<T>(), total_N.data<T>(), y_NK.dim(0), y_NK.dim(1));
}

void forward(const Tensor& y_NK, const Tensor& total_N, const Tensor& x_NK) {
  if (x_NK.dtype() == DType::f64)
    forward_typed<double>(y_NK, total_N, x_NK);
  else
    forward_typed<float>(y_NK, total_N, x_NK);
}

void backward(const Tensor& dx_NK, const Tensor& dy_NK, const Tensor& y_NK, const Tensor& total_N) {
  if (y_NK.dtype() == DType::f64)
    backward_typed<double>(dx_NK, dy_NK, y_NK, total_N);
  else
    backward_typed<float>(dx_NK, dy_NK, y_NK, total_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(NormalizeRowsKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
