// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/gather_columns.h"

#include <algorithm>

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements: a small router runs on one thread

template <class T>
void forward_rows(const Tensor& y_NK, const Tensor& x_NE, const Tensor& index_NK) {
  const int64_t columns = x_NE.dim(1), k = index_NK.dim(1);
  parallel_for(x_NE.dim(0), kChunk / 8, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t i = n * k; i < (n + 1) * k; ++i) {
        const int32_t column = index_NK.data<int32_t>()[i];
        STMOE_CHECK(column >= -1 && column < columns, "gather_columns: column {} of {} in row {}",
                    column, columns, n);
        y_NK.data<T>()[i] = column < 0 ? T{0} : x_NE.data<T>()[n * columns + column];
      }
  });
}

template <class T>
void backward_rows(const Tensor& dx_NE, const Tensor& dy_NK, const Tensor& index_NK) {
  const int64_t columns = dx_NE.dim(1), k = index_NK.dim(1);
  parallel_for(dx_NE.dim(0), std::max<int64_t>(1, kChunk / std::max<int64_t>(1, columns)),
               [&](int64_t begin, int64_t end) {
                 T* dx = dx_NE.data<T>();
                 std::fill(dx + begin * columns, dx + end * columns, T{0});
                 for (int64_t n = begin; n < end; ++n)
                   for (int64_t i = n * k; i < (n + 1) * k; ++i) {
                     const int32_t column = index_NK.data<int32_t>()[i];
                     if (column >= 0) dx[n * columns + column] += dy_NK.data<T>()[i];
                   }
               });
}

void forward_cpu(const Tensor& y_NK, const Tensor& x_NE, const Tensor& index_NK) {
  if (x_NE.dtype() == DType::f64)
    forward_rows<double>(y_NK, x_NE, index_NK);
  else
    forward_rows<float>(y_NK, x_NE, index_NK);
}

void backward_cpu(const Tensor& dx_NE, const Tensor& dy_NK, const Tensor& index_NK) {
  if (dx_NE.dtype() == DType::f64)
    backward_rows<double>(dx_NE, dy_NK, index_NK);
  else
    backward_rows<float>(dx_NE, dy_NK, index_NK);
}

STMOE_REGISTER_KERNELS(GatherColumnsKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

Var gather_columns(const Var& x_NE, const Tensor& index_NK) {
  OpScope scope("gather_columns", OpScope::Pass::forward);
  STMOE_CHECK(x_NE.rank() == 2 && (x_NE.dtype() == DType::f32 || x_NE.dtype() == DType::f64),
              "gather_columns: x is {} {}, expected f32 or f64 [rows, columns]",
              name_of(x_NE.dtype()), x_NE.shape().text());
  STMOE_CHECK(index_NK.rank() == 2 && index_NK.dim(0) == x_NE.dim(0),
              "gather_columns: index {} for x {}", index_NK.shape().text(), x_NE.shape().text());
  const Tensor x = x_NE.value().contiguous(), index = index_NK.contiguous();
  const Tensor y_NK = Tensor::empty(index.shape(), x.dtype(), x.device());
  kernels<GatherColumnsKernels>(x.device()).forward(y_NK, x, index);
  return record(
      "gather_columns", y_NK, {x_NE},
      [index, shape = x.shape()](const Tensor& dy_NK) -> std::vector<Tensor> {
        const Tensor dx_NE = Tensor::empty(shape, dy_NK.dtype(), dy_NK.device());
        kernels<GatherColumnsKernels>(dy_NK.device()).backward(dx_NE, dy_NK.contiguous(), index);
        return {dx_NE};
      });
}

}  // namespace stmoe
