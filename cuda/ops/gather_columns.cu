// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/vector.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/gather_columns.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// A thread for each result: reads its index and one value, writes one.
template <class T>
STMOE_KERNEL gather(T* y_NK, const T* x_NE, const int32_t* index_NK, int64_t count, int64_t columns,
                    int64_t k) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < count) {
    const int64_t column = index_NK[i];
    y_NK[i] = column < 0 ? T(0) : x_NE[quotient(i, k) * columns + column];
  }
}

// A thread for each gradient, which adds up, in order, what chose its column: writes 4 bytes an
// element; the row's k indices and gradients are read by all threads of the row from the caches.
template <class T>
STMOE_KERNEL spread(T* dx_NE, const T* dy_NK, const int32_t* index_NK, int64_t count,
                    int64_t columns, int64_t k) {
  const int64_t i = block_index() * kThreads + thread_index();
  if (i < count) {
    const int64_t n = quotient(i, columns), column = i - n * columns;
    T total = 0;
    for (int64_t j = n * k; j < (n + 1) * k; ++j)
      if (index_NK[j] == column) total += dy_NK[j];
    dx_NE[i] = total;
  }
}

template <class T>
void forward_typed(const Tensor& y_NK, const Tensor& x_NE, const Tensor& index_NK) {
  launch(gather<T>, blocks_for(y_NK.numel(), kThreads), kThreads, 0, y_NK.data<T>(), x_NE.data<T>(),
         index_NK.data<int32_t>(), y_NK.numel(), x_NE.dim(1), index_NK.dim(1));
}

template <class T>
void backward_typed(const Tensor& dx_NE, const Tensor& dy_NK, const Tensor& index_NK) {
  launch(spread<T>, blocks_for(dx_NE.numel(), kThreads), kThreads, 0, dx_NE.data<T>(),
         dy_NK.data<T>(), index_NK.data<int32_t>(), dx_NE.numel(), dx_NE.dim(1), index_NK.dim(1));
}

void forward(const Tensor& y_NK, const Tensor& x_NE, const Tensor& index_NK) {
  if (x_NE.dtype() == DType::f64)
    forward_typed<double>(y_NK, x_NE, index_NK);
  else
    forward_typed<float>(y_NK, x_NE, index_NK);
}

void backward(const Tensor& dx_NE, const Tensor& dy_NK, const Tensor& index_NK) {
  if (dx_NE.dtype() == DType::f64)
    backward_typed<double>(dx_NE, dy_NK, index_NK);
  else
    backward_typed<float>(dx_NE, dy_NK, index_NK);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(GatherColumnsKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
