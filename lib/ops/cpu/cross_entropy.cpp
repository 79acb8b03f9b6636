// SPDX-License-Identifier: Apache-2.0
// The gradient of row n is  dtotal * ((1 + 2 z log Z) softmax - soft),  made from the logits in the
// backward pass: the exponentials cost less than a second [N, V] tensor would. Where the gradient
// is made at once, they take the logits' place. Rows are read several times while they are in
// cache; f32 sums of 512 elements are added up in f64.
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

// x = exp(x - most); returns its sum, with the bits of sum_row.
template <class T>
double exponentials(T* x, T most, int64_t count) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    T part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t v = begin; v < end; ++v) part += x[v] = vector_exp(x[v] - most);
    total += static_cast<double>(part);
  }
  return total;
}

// The loss of a row; `sum_of_exponentials` is called last and may write over x.
template <class T, class F>
RowResult row_loss(const T* x, int64_t target, int64_t size, const CrossEntropyOptions& options,
                   F sum_of_exponentials) {
  RowResult row;
  const T most = largest(x, size), logit = x[target];
  row.max = static_cast<double>(most);
  row.is_correct = logit == most && std::find(x, x + target, most) == x + target;
  const double sum = options.label_smoothing > 0 ? sum_row(x, size, [](T a) { return a; }) : 0;
  row.log_z = row.max + std::log(sum_of_exponentials(most));
  row.cross_entropy = row.log_z - static_cast<double>(logit);
  row.loss = row.cross_entropy;
  if (options.label_smoothing > 0) {
    const double others = static_cast<double>(size - 1), on = 1 - options.label_smoothing;
    const double off = options.label_smoothing / others;
    const double all = static_cast<double>(size) * row.log_z - sum;  // -sum_v log p_v
    row.loss = on * row.cross_entropy + off * (all - row.cross_entropy) + on * std::log(on) +
               others * off * std::log(off);
  }
  row.loss += options.z_loss * row.log_z * row.log_z;
  return row;
}

template <class T>
RowResult forward_row(const T* x, int64_t target, int64_t size,
                      const CrossEntropyOptions& options) {
  return row_loss(x, target, size, options, [=](T most) {
    return sum_row(x, size, [most](T a) { return vector_exp(a - most); });
  });
}

// dx[v] = factor * exp(x[v] - max) - everywhere - (v == target ? at_target : 0).
template <class T>
struct RowGradient {
  RowGradient(double dtotal, int64_t size, double max, double log_z,
              const CrossEntropyOptions& options) {
    const double off =
        options.label_smoothing > 0 ? options.label_smoothing / static_cast<double>(size - 1) : 0;
    factor = static_cast<T>(dtotal * (1 + 2 * options.z_loss * log_z) / std::exp(log_z - max));
    everywhere = static_cast<T>(dtotal * off);
    at_target = static_cast<T>(dtotal * (1 - options.label_smoothing - off));
  }
  T factor, everywhere, at_target;
};

template <class T>
void backward_row(T* dx, const T* x, int64_t target, int64_t size, T most,
                  const RowGradient<T>& gradient) {
  const T factor = gradient.factor, everywhere = gradient.everywhere;
#pragma GCC ivdep
  for (int64_t v = 0; v < size; ++v) dx[v] = factor * vector_exp(x[v] - most) - everywhere;
  dx[target] -= gradient.at_target;
}

// From the exponentials. dx may be x.
template <class G, class T>
void gradient_row(G* dx, const T* x, int64_t target, int64_t size, const RowGradient<T>& gradient) {
  const T factor = gradient.factor, everywhere = gradient.everywhere;
  const T at_target = factor * x[target] - everywhere - gradient.at_target;
#pragma GCC ivdep
  for (int64_t v = 0; v < size; ++v) dx[v] = static_cast<G>(factor * x[v] - everywhere);
  dx[target] = static_cast<G>(at_target);
}

template <class F>
void visit_logits(DType dtype, F&& f) {
  if (dtype == DType::f64)
    f(double{});
  else
    f(float{});
}

void store(const CrossEntropyRows& rows, int64_t n, const RowResult& row) {
  rows.loss_N.data<double>()[n] = row.loss;
  rows.cross_entropy_N.data<double>()[n] = row.cross_entropy;
  rows.max_N.data<double>()[n] = row.max;
  rows.log_z_N.data<double>()[n] = row.log_z;
  rows.is_correct_N.data<uint8_t>()[n] = row.is_correct;
}

void forward_cpu(const CrossEntropyRows& rows, const Tensor& logits_NV, const Tensor& targets_N,
                 const CrossEntropyOptions& options) {
  visit_logits(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* logits = logits_NV.data<T>();
    const int32_t* targets = targets_N.data<int32_t>();
    const int64_t size = logits_NV.dim(1);
    parallel_for(logits_NV.dim(0), 4, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        store(rows, n,
              targets[n] == 0 ? RowResult{}
                              : forward_row(logits + n * size, targets[n], size, options));
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
          backward_row(dlogits + n * size, logits + n * size, targets[n], size,
                       static_cast<T>(rows.max_N.data<double>()[n]),
                       RowGradient<T>(scale, size, rows.max_N.data<double>()[n],
                                      rows.log_z_N.data<double>()[n], options));
      }
    });
  });
}

template <class G, class T>
void forward_and_gradient(const CrossEntropyRows& rows, G* dlogits, T* logits,
                          const int32_t* targets, int64_t count, int64_t size, double dtotal,
                          const CrossEntropyOptions& options) {
  parallel_for(count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* x = logits + n * size;
      G* dx = dlogits + n * size;
      if (targets[n] == 0) {
        store(rows, n, {});
        std::fill_n(dx, size, G(0));
        continue;
      }
      const RowResult row = row_loss(x, targets[n], size, options,
                                     [=](T most) { return exponentials(x, most, size); });
      store(rows, n, row);
      gradient_row(dx, x, targets[n], size,
                   RowGradient<T>(dtotal, size, row.max, row.log_z, options));
    }
  });
}

void forward_and_gradient_cpu(const CrossEntropyRows& rows, const Tensor& dlogits_NV,
                              const Tensor& logits_NV, const Tensor& targets_N, double dtotal,
                              const CrossEntropyOptions& options) {
  visit_logits(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto run = [&](auto* dlogits) {
      forward_and_gradient(rows, dlogits, logits_NV.data<T>(), targets_N.data<int32_t>(),
                           logits_NV.dim(0), logits_NV.dim(1), dtotal, options);
    };
    dlogits_NV.dtype() == DType::bf16 ? run(dlogits_NV.data<bf16>()) : run(dlogits_NV.data<T>());
  });
}

// In the rows' order.
void add_up_cpu(const Tensor& total, const Tensor& sums, const CrossEntropyRows& rows,
                const Tensor& targets_N) {
  const auto targets = targets_N.span<int32_t>();
  const auto loss = rows.loss_N.span<double>(), nats = rows.cross_entropy_N.span<double>();
  const auto is_correct = rows.is_correct_N.span<uint8_t>();
  double all = 0, cross_entropy = 0;
  int64_t num_targets = 0, num_correct = 0;
  for (size_t n = 0; n < targets.size(); ++n) {
    all += loss[n];
    cross_entropy += nats[n];
    num_targets += targets[n] != 0;
    num_correct += is_correct[n];
  }
  total.fill(all);
  double* results = sums.data<double>();
  results[0] = cross_entropy;
  results[1] = static_cast<double>(num_targets);
  results[2] = static_cast<double>(num_correct);
}

STMOE_REGISTER_KERNELS(CrossEntropyKernels, cpu,
                       {forward_cpu, forward_and_gradient_cpu, backward_cpu, add_up_cpu})

}  // namespace
}  // namespace stmoe
