// SPDX-License-Identifier: Apache-2.0
// The gradient of row n is  dtotal * ((1 + 2 z log Z) softmax - soft),  made from the logits in the
// backward pass: the exponentials cost less than a second [N, V] tensor would. Rows are read twice
// while they are in cache; f32 sums of 512 elements are added up in f64.
#include "lib/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/threads.h"
#include "lib/ops/cpu/vector_math.h"

namespace stmoe {
namespace {

constexpr int64_t kBlock = 512;

template <class T>
T largest(const T* x, int64_t count) {
  T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t v = 0; v < count; ++v) most = x[v] > most ? x[v] : most;
  return most;
}

// sum of f(x[v]) over the row
template <class T, class F>
double sum_row(const T* x, int64_t count, F f) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t v = begin; v < end; ++v) part += f(x[v]);
    total += static_cast<double>(part);
  }
  return total;
}

struct RowResult {
  double loss = 0, cross_entropy = 0, max = 0, log_z = 0;
  bool is_correct = false;
};

template <class T>
RowResult forward_row(const T* x, int64_t target, int64_t size,
                      const CrossEntropyOptions& options) {
  RowResult row;
  const T most = largest(x, size);
  row.max = static_cast<double>(most);
  row.log_z = row.max + std::log(sum_row(x, size, [most](T a) { return vector_exp(a - most); }));
  row.cross_entropy = row.log_z - static_cast<double>(x[target]);
  row.is_correct = x[target] == most && std::find(x, x + target, most) == x + target;
  row.loss = row.cross_entropy;
  if (options.label_smoothing > 0) {
    const double others = static_cast<double>(size - 1), on = 1 - options.label_smoothing;
    const double off = options.label_smoothing / others;
    const double all = static_cast<double>(size) * row.log_z -
                       sum_row(x, size, [](T a) { return a; });  // -sum_v log p_v
    row.loss = on * row.cross_entropy + off * (all - row.cross_entropy) + on * std::log(on) +
               others * off * std::log(off);
  }
  row.loss += options.z_loss * row.log_z * row.log_z;
  return row;
}

template <class T>
void backward_row(T* dx, const T* x, int64_t target, int64_t size, double dtotal, double max,
                  double log_z, const CrossEntropyOptions& options) {
  const double off =
      options.label_smoothing > 0 ? options.label_smoothing / static_cast<double>(size - 1) : 0;
  const T most = static_cast<T>(max);
  const T factor =
      static_cast<T>(dtotal * (1 + 2 * options.z_loss * log_z) / std::exp(log_z - max));
  const T everywhere = static_cast<T>(dtotal * off);
#pragma GCC ivdep
  for (int64_t v = 0; v < size; ++v) dx[v] = factor * vector_exp(x[v] - most) - everywhere;
  dx[target] -= static_cast<T>(dtotal * (1 - options.label_smoothing - off));
}

template <class F>
void visit_logits(DType dtype, F&& f) {
  if (dtype == DType::f64)
    f(double{});
  else
    f(float{});
}

void forward_cpu(const CrossEntropyRows& rows, const Tensor& logits_NV, const Tensor& targets_N,
                 const CrossEntropyOptions& options) {
  visit_logits(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* logits = logits_NV.data<T>();
    const int32_t* targets = targets_N.data<int32_t>();
    const int64_t size = logits_NV.dim(1);
    parallel_for(logits_NV.dim(0), 4, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const RowResult row = targets[n] == 0
                                  ? RowResult{}
                                  : forward_row(logits + n * size, targets[n], size, options);
        rows.loss_N.data<double>()[n] = row.loss;
        rows.cross_entropy_N.data<double>()[n] = row.cross_entropy;
        rows.max_N.data<double>()[n] = row.max;
        rows.log_z_N.data<double>()[n] = row.log_z;
        rows.is_correct_N.data<uint8_t>()[n] = row.is_correct;
      }
    });
  });
}

void backward_cpu(const Tensor& dlogits_NV, const Tensor& dtotal, const Tensor& logits_NV,
                  const Tensor& targets_N, const CrossEntropyRows& rows,
                  const CrossEntropyOptions& options) {
  visit_logits(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* dlogits = dlogits_NV.data<T>();
    const T* logits = logits_NV.data<T>();
    const int32_t* targets = targets_N.data<int32_t>();
    const int64_t size = logits_NV.dim(1);
    const double scale = dtotal.item();
    parallel_for(logits_NV.dim(0), 4, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        if (targets[n] == 0)
          std::fill_n(dlogits + n * size, size, T(0));
        else
          backward_row(dlogits + n * size, logits + n * size, targets[n], size, scale,
                       rows.max_N.data<double>()[n], rows.log_z_N.data<double>()[n], options);
      }
    });
  });
}

STMOE_REGISTER_KERNELS(CrossEntropyKernels, cpu, {forward_cpu, backward_cpu})

}  // namespace

}  // namespace stmoe
