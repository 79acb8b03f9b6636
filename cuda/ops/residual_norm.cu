// SPDX-License-Identifier: Apache-2.0
// Sum, dropout and norm of a row in one pass (cuda/device/norm_rows.h). The sum alone is an
// element-wise kernel: 3 b bytes an element, b the type's.
#include "cuda/device/map.h"
#include "cuda/device/norm_rows.h"
#include "lib/ops/residual_norm.h"

namespace stmoe::gpu {
namespace {

// One vector a thread. Reads x and branch, writes their sum.
template <int V, class T>
STMOE_KERNEL sum_kernel(T* sum, const T* x, const T* branch, int64_t units,
                        UnitMask<Compute<T>> mask) {
  const int64_t unit = block_index() * block_threads() + thread_index();
  if (unit < units) {
    Compute<T> values[V], more[V];
    load_values(values, x + unit * V);
    load_values(more, branch + unit * V);
    drop_out(more, mask, unit);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) values[i] += more[i];
    store_values(sum + unit * V, values);
  }
}

// Null for an undefined tensor.
template <class T>
T* pointer(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

template <class T>
void sum_alone(const ResidualNormForward& task) {
  T* sum = task.sum_ND.data<T>();
  const T *x = task.x_ND.data<T>(), *branch = task.branch_ND.data<T>();
  const int64_t width = task.x_ND.dim(1);
  const bool in_vectors =
      tiles_rows(kVectorOf<T>, width, sum, x, branch) && tiles_mask(kVectorOf<T>, task.mask);
  visit_vector<T>(in_vectors, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const int64_t units = task.x_ND.numel() / V;
    launch(sum_kernel<V, T>, blocks_for(units, kMapThreads), kMapThreads, 0, sum, x, branch, units,
           unit_mask<Compute<T>>(task.mask, V));
  });
}

void forward(const ResidualNormForward& task) {
  visit_floating(task.x_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    if (!task.y_ND.defined()) return sum_alone<T>(task);
    norm_rows<T>(
        {task.sum_ND.data<T>(), task.y_ND.data<T>(), task.rstd_N.data<C>(), task.x_ND.data<T>(),
         pointer<T>(task.branch_ND), task.scale_D.data<C>(), task.eps, task.mask},
        task.x_ND.dim(0), task.x_ND.dim(1));
  });
}

void backward(const ResidualNormBackward& task) {
  visit_floating(task.sum_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    norm_rows_backward<T>(
        {task.dsum_ND.data<T>(), pointer<T>(task.dbranch_ND), task.dscale_D.data<C>(),
         pointer<T>(task.from_sum_ND), task.dy_ND.data<T>(), task.sum_ND.data<T>(),
         task.scale_D.data<C>(), task.rstd_N.data<C>(), task.mask},
        task.sum_ND.dim(0), task.sum_ND.dim(1), task.sum_ND.device());
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ResidualNormKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
