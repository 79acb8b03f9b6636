// SPDX-License-Identifier: Apache-2.0
// Rows of hidden states in and out of a chunk, a warp each, and the rescaling of a ready gradient.
// Few bytes beside the products of the op: of an element 4 in, 2 f32 and 1 bf16 out.
#include "cuda/device/map.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/linear_cross_entropy.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// y[to] = factor * x[from] for `count` rows of `width`: row m of the one is row rows[m] (m when
// there are none) of the other. A warp has a row, 16 bytes of the narrower type a lane.
template <int V, class Y, class X>
STMOE_KERNEL scale_rows(Y* y, const X* x, const int32_t* to_rows, const int32_t* from_rows,
                        int64_t count, int64_t width, Compute<X> factor) {
  const int64_t m = block_index() * kWarps + warp_index();
  if (m < count) {
    Y* to = y + (to_rows ? to_rows[m] : m) * width;
    const X* from = x + (from_rows ? from_rows[m] : m) * width;
    for (int64_t at = int64_t{lane_index()} * V; at < width; at += kWarp * V) {
      Compute<X> values[V];
      load_values<V>(values, from + at);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) values[i] *= factor;
      store_values(to + at, values);
    }
  }
}

template <class Y, class X>
void scale_rows_of(const Tensor& y, const Tensor& x, const Tensor& to_rows, const Tensor& from_rows,
                   int64_t count, double factor) {
  const auto rows = [](const Tensor& t) { return t.defined() ? t.data<int32_t>() : nullptr; };
  const int64_t width = y.dim(1);
  visit_vector<Y>(tiles_rows(kVectorOf<Y>, width, y.raw(), x.raw()), [&](auto v) {
    launch(scale_rows<decltype(v)::value, Y, X>, blocks_for(count, kWarps), kThreads, 0,
           y.data<Y>(), x.data<X>(), rows(to_rows), rows(from_rows), count, width,
           static_cast<Compute<X>>(factor));
  });
}

// Reads one number, and only then, where it is another one than expected, the gradient.
template <int V, class T, class D>
STMOE_KERNEL rescale_kernel(T* gradient, const D* dtotal, double expected, int64_t units) {
  const double ratio = static_cast<double>(*dtotal) / expected;
  if (ratio == 1) return;
  const int64_t step = num_blocks() * block_threads();
  for (int64_t unit = block_index() * block_threads() + thread_index(); unit < units;
       unit += step) {
    Compute<T> values[V];
    load_values<V>(values, gradient + unit * V);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) values[i] *= static_cast<Compute<T>>(ratio);
    store_values(gradient + unit * V, values);
  }
}

void gather(const Tensor& y_MD, const Tensor& x_ND, const Tensor& rows_M, double factor) {
  visit_floating(x_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    scale_rows_of<T, T>(y_MD, x_ND, Tensor(), rows_M, y_MD.dim(0), factor);
  });
}

void scatter(const Tensor& dx_ND, const Tensor& dy_MD, const Tensor& rows_M, double factor) {
  visit_floating(dx_ND.dtype(), [&](auto tag) {
    using T = decltype(tag);
    scale_rows_of<T, Compute<T>>(dx_ND, dy_MD, rows_M, Tensor(), dy_MD.dim(0), factor);
  });
}

void rescale(const Tensor& gradient, const Tensor& dtotal, double expected) {
  constexpr int64_t kMostBlocks = 1056;  // eight on each of 132 multiprocessors
  visit_floating(gradient.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using D = std::conditional_t<std::is_same_v<T, double>, double, float>;
    visit_vector<T>(tiles_rows(kVectorOf<T>, gradient.numel(), gradient.raw()), [&](auto v) {
      constexpr int V = decltype(v)::value;
      const int64_t units = gradient.numel() / V;
      const Grid grid{std::min(kMostBlocks, blocks_for(units, kThreads).x), 1};
      launch(rescale_kernel<V, T, D>, grid, kThreads, 0, gradient.data<T>(), dtotal.data<D>(),
             expected, units);
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(LinearCrossEntropyKernels, STMOE_GPU,
                       {gpu::gather, gpu::scatter, gpu::rescale})

}  // namespace stmoe
