// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of cuda/device/map.h, and sums in f64: each block's share in the same order
// always, then the blocks' sums by one block.
#include "cuda/device/map.h"
#include "cuda/device/warp.h"
#include "lib/ops/add.h"

namespace stmoe::gpu {
namespace {

struct Product {
  static constexpr int kInputs = 2, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = x[0] * x[1];
  }
};

template <class C>
struct Multiple {
  C factor;
  static constexpr int kInputs = 1, kOutputs = 1;
  STMOE_METHOD void of(C* y, const C* x) const { y[0] = factor * x[0]; }
};

// One element a thread.
template <class To, class From>
STMOE_KERNEL spread_value(To* y, const From* value, int64_t count) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) store_as(y[i], static_cast<Compute<To>>(load_as(*value)));
}

constexpr int kThreads = 256, kMostBlocks = 1024;

// partial[block] = the sum of what the block's threads read: vectors a grid apart. Reads each
// element once.
template <int V, class T>
STMOE_KERNEL sum_blocks(double* partial, const T* x, int64_t units) {
  STMOE_SHARED(double, shared, kWarp);
  double total = 0;
  for (int64_t unit = block_index() * block_threads() + thread_index(); unit < units;
       unit += num_blocks() * block_threads()) {
    Compute<T> values[V];
    load_values(values, x + unit * V);
    double vector = 0;
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) vector += static_cast<double>(values[i]);
    total += vector;
  }
  total = block_sum(total, shared);
  if (thread_index() == 0) partial[block_index()] = total;
}

// One block.
template <class T>
STMOE_KERNEL sum_partials(T* y, const double* partial, int count) {
  STMOE_SHARED(double, shared, kWarp);
  double total = 0;
  for (int i = thread_index(); i < count; i += block_threads()) total += partial[i];
  total = block_sum(total, shared);
  if (thread_index() == 0) *y = static_cast<T>(total);
}

// Terms of weighted_sum that one launch adds.
constexpr int kTerms = 4;
struct Weights {
  double coefficient[kTerms] = {};
  DType dtype[kTerms] = {};
};

STMOE_DEVICE double read_as_double(const void* value, DType dtype) {
  if (dtype == DType::f64) return *static_cast<const double*>(value);
  if (dtype == DType::f32) return static_cast<double>(*static_cast<const float*>(value));
  return static_cast<double>(load_as(*static_cast<const bf16*>(value)));
}

// One thread: a few numbers. total += sum of the terms, those that are null left out; y = total.
template <class T>
STMOE_KERNEL weigh_terms(T* y, double* total, const void* a, const void* b, const void* c,
                         const void* d, Weights weights, bool is_first) {
  if (thread_index() == 0) {
    const void* terms[] = {a, b, c, d};
    double sum = is_first ? 0 : *total;
    STMOE_UNROLL
    for (int i = 0; i < kTerms; ++i)
      if (terms[i]) sum += weights.coefficient[i] * read_as_double(terms[i], weights.dtype[i]);
    *total = sum;
    *y = static_cast<T>(sum);
  }
}

void add(const Tensor& y, const Tensor& a, const Tensor& b) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<SumOfTwo, T>({y.data<T>()}, {a.data<T>(), b.data<T>()}, y.numel(), {});
  });
}

void multiply(const Tensor& y, const Tensor& a, const Tensor& b) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<Product, T>({y.data<T>()}, {a.data<T>(), b.data<T>()}, y.numel(), {});
  });
}

void scale(const Tensor& y, const Tensor& x, double c) {
  visit_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using F = Multiple<Compute<T>>;
    map_elements<F, T>({y.data<T>()}, {x.data<T>()}, y.numel(), F{static_cast<Compute<T>>(c)});
  });
}

void spread(const Tensor& y, const Tensor& value) {
  visit_floating(y.dtype(), [&](auto to) {
    visit_floating(value.dtype(), [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      launch(spread_value<To, From>, blocks_for(y.numel(), kThreads), kThreads, 0, y.data<To>(),
             value.data<From>(), y.numel());
    });
  });
}

void weighted_sum(const Tensor& y, std::span<const Tensor> terms,
                  std::span<const double> coefficients) {
  const Tensor total = Tensor::empty({1}, DType::f64, y.device());
  for (size_t first = 0; first < terms.size(); first += kTerms) {
    const void* values[kTerms] = {};
    Weights weights;
    for (size_t i = 0; i < kTerms && first + i < terms.size(); ++i) {
      values[i] = terms[first + i].raw();
      weights.coefficient[i] = coefficients[first + i];
      weights.dtype[i] = terms[first + i].dtype();
    }
    visit_wide(y.dtype(), [&](auto tag) {
      using T = decltype(tag);
      launch(weigh_terms<T>, {}, kWarp, 0, y.data<T>(), total.data<double>(), values[0], values[1],
             values[2], values[3], weights, first == 0);
    });
  }
}

void sum(const Tensor& y, const Tensor& x) {
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    visit_vector<T>(tiles_rows(kVectorOf<T>, x.numel(), x.data<T>()), [&](auto v) {
      constexpr int V = decltype(v)::value;
      const int64_t units = x.numel() / V;
      const int64_t blocks = std::min<int64_t>(kMostBlocks, blocks_for(units, kThreads).x);
      const Tensor partial = Tensor::empty({blocks}, DType::f64, x.device());
      launch(sum_blocks<V, T>, {blocks}, kThreads, 0, partial.data<double>(), x.data<T>(), units);
      visit_wide(y.dtype(), [&](auto to) {
        using To = decltype(to);
        launch(sum_partials<To>, {}, kThreads, 0, y.data<To>(), partial.data<double>(), blocks);
      });
    });
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(AddKernels, STMOE_GPU,
                       {gpu::add, gpu::multiply, gpu::scale, gpu::weighted_sum, gpu::sum,
                        gpu::spread})

}  // namespace stmoe
