// SPDX-License-Identifier: Apache-2.0
// The gradient of the bias comes first, because dx may overwrite dy: an expert's rows are cut into
// slices, whose partial sums are added in order.
#include "cuda/device/column_sums.h"
#include "cuda/device/dropout_mask.h"
#include "lib/ops/expert_bias.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSliceRows = 64, kMostSlices = 64;

// The expert of a row; the number of experts for a row that is nobody's.
STMOE_DEVICE int expert_of(const int32_t* first_row, int num_experts, int64_t row) {
  int low = 0, high = num_experts;  // the answer is in [low, high]
  while (low < high) {
    const int middle = (low + high) / 2;
    if (first_row[middle + 1] > row)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

enum class Combine { multiply, add, pass };

// One vector a thread: out = dropout(in * bias), dropout(in + bias) or dropout(in), zeros in rows
// of nobody and in unused ones, which are not read. row_R may be null. Reads and writes each
// element once; the bias comes from the cache.
template <int V, class T>
STMOE_KERNEL combine_rows(T* out, const T* in, const Compute<T>* bias, const int32_t* first_row,
                          int num_experts, int64_t units, int64_t row_units, const int32_t* row_R,
                          UnitMask<Compute<T>> mask, Combine combine) {
  using C = Compute<T>;
  const int64_t unit = block_index() * block_threads() + thread_index();
  if (unit < units) {
    const int64_t row = quotient(unit, row_units), column = unit - row * row_units;
    const int expert = expert_of(first_row, num_experts, row);
    const int64_t from = row_R ? row_R[row] : row;
    C values[V] = {};
    if (from >= 0 && expert < num_experts) {
      C biases[V];
      load_values(values, in + unit * V);
      load_values(biases, bias + (expert * row_units + column) * V);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        if (combine == Combine::multiply) values[i] *= biases[i];
        if (combine == Combine::add) values[i] += biases[i];
      }
      drop_out(values, mask, from * row_units + column);
    }
    store_values(out + unit * V, values);
  }
}

// Block (slice of an expert, part of a row): a thread has a vector of columns and goes through the
// slice's rows. partial [experts, slices, width]. Reads dy once, and x, which is null when the bias
// is added.
template <int V, class T>
STMOE_KERNEL sum_slices(Compute<T>* partial, const T* dy, const T* x, const int32_t* first_row,
                        int64_t slices, int64_t row_units, const int32_t* row_R,
                        UnitMask<Compute<T>> mask) {
  using C = Compute<T>;
  const int64_t expert = block_index() / slices, slice = block_index() % slices;
  const int64_t begin = first_row[expert], count = first_row[expert + 1] - begin;
  const int64_t last = begin + count * (slice + 1) / slices;
  const int64_t column = block_index_y() * block_threads() + thread_index();
  if (column < row_units) {
    C sum[V] = {};
    for (int64_t row = begin + count * slice / slices; row < last; ++row) {
      const int64_t from = row_R ? row_R[row] : row, at = (row * row_units + column) * V;
      if (from < 0) continue;
      C terms[V];
      load_values(terms, dy + at);
      if (x) {
        C values[V];
        load_values(values, x + at);
        STMOE_UNROLL
        for (int i = 0; i < V; ++i) terms[i] *= values[i];
      }
      drop_out(terms, mask, from * row_units + column);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) sum[i] += terms[i];
    }
    store_values(partial + (block_index() * row_units + column) * V, sum);
  }
}

template <class T>
bool in_vectors(const Tensor& a, const Tensor& b, const ExpertBiasInputs& in) {
  return tiles_rows(kVectorOf<T>, in.mask.width, a.raw(), b.raw(), in.bias_EF.raw(),
                    in.x_RF.raw()) &&
         tiles_mask(kVectorOf<T>, in.mask.mask);
}

const int32_t* mask_rows(const ExpertBiasInputs& in) {
  return in.mask.row_R.defined() ? in.mask.row_R.data<int32_t>() : nullptr;
}

template <int V, class T>
void combine(const Tensor& out, const Tensor& from, const ExpertBiasInputs& in, Combine combine) {
  using C = Compute<T>;
  const int64_t row_units = in.mask.width / V, units = in.mask.rows * row_units;
  launch(combine_rows<V, T>, blocks_for(units, kThreads), kThreads, 0, out.data<T>(),
         from.data<T>(), in.bias_EF.data<C>(), in.first_row_E1.data<int32_t>(), in.bias_EF.dim(0),
         units, row_units, mask_rows(in), unit_mask<C>(in.mask.mask, V), combine);
}

void forward(const Tensor& y_RF, const ExpertBiasInputs& in) {
  visit_floating(y_RF.dtype(), [&](auto tag) {
    using T = decltype(tag);
    visit_vector<T>(in_vectors<T>(y_RF, y_RF, in), [&](auto v) {
      combine<decltype(v)::value, T>(y_RF, in.x_RF, in,
                                     in.is_additive ? Combine::add : Combine::multiply);
    });
  });
}

template <int V, class T>
void bias_gradient(const Tensor& dbias_EF, const Tensor& dy_RF, const ExpertBiasInputs& in) {
  using C = Compute<T>;
  const int64_t experts = in.bias_EF.dim(0), width = in.mask.width, row_units = width / V;
  if (experts == 0) return;
  const int64_t slices = std::clamp<int64_t>(in.mask.rows / experts / kSliceRows, 1, kMostSlices);
  const Tensor partial = Tensor::empty({experts, slices, width}, kDTypeOf<C>, dy_RF.device());
  launch(sum_slices<V, T>, {experts * slices, blocks_for(row_units, kThreads).x}, kThreads, 0,
         partial.data<C>(), dy_RF.data<T>(), in.is_additive ? nullptr : in.x_RF.data<T>(),
         in.first_row_E1.data<int32_t>(), slices, row_units, mask_rows(in),
         unit_mask<C>(in.mask.mask, V));
  sum_columns(dbias_EF.data<C>(), partial.data<C>(), experts, slices, width);
}

void backward(const Tensor& dx_RF, const Tensor& dbias_EF, const Tensor& dy_RF,
              const ExpertBiasInputs& in) {
  visit_floating(dy_RF.dtype(), [&](auto tag) {
    using T = decltype(tag);
    visit_vector<T>(in_vectors<T>(dx_RF, dy_RF, in), [&](auto v) {
      constexpr int V = decltype(v)::value;
      bias_gradient<V, T>(dbias_EF, dy_RF, in);
      combine<V, T>(dx_RF, dy_RF, in, in.is_additive ? Combine::pass : Combine::multiply);
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(ExpertBiasKernels, STMOE_GPU, {gpu::forward, gpu::backward})

}  // namespace stmoe
