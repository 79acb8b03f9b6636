// SPDX-License-Identifier: Apache-2.0
// A block has a row of logits. It reads it twice: once for the largest logit and the sum of
// exponentials, which is rescaled whenever a larger logit comes, and once for the gradient; the
// rows in work fit in the L2 cache (132 x 2 rows of 32128 f32: 34 MB), so that the second reading
// costs no memory traffic. Rows of 250000 are read twice from memory. Bytes of a logit: forward 4,
// forward and gradient 4 (8) + 2, backward 4 + 4. 512 threads: 16 vectors each in a row of 32128,
// two blocks on a multiprocessor, so that one's sums hide behind the other's reading.
#include <cfloat>

#include "cuda/device/map.h"
#include "cuda/device/math.h"
#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/cross_entropy.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 512, kSumThreads = 1024;
constexpr int kHeld = 4;  // vectors of a thread that are on their way at once

// CrossEntropyRows.
struct RowPointers {
  double *loss, *cross_entropy, *max, *log_z;
  uint8_t* is_correct;
};

RowPointers pointers_of(const CrossEntropyRows& rows) {
  return {rows.loss_N.data<double>(), rows.cross_entropy_N.data<double>(),
          rows.max_N.data<double>(), rows.log_z_N.data<double>(),
          rows.is_correct_N.data<uint8_t>()};
}

// Calls f(values, first element) for each vector that this thread has of a row. The vectors that
// are fetched together are looked at together first: look(values) for each, then next().
template <int V, class T, class Look, class Next, class F>
STMOE_DEVICE void for_each_vector(const T* row, int64_t size, Look look, Next next, F f) {
  const int64_t units = size / V;
  for (int64_t base = thread_index(); base < units; base += int64_t{kHeld} * block_threads()) {
    Vector<T, V> held[kHeld];
    STMOE_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      const int64_t unit = base + int64_t{j} * block_threads();
      if (unit < units) held[j] = load_vector<V>(row + unit * V);
    }
    STMOE_UNROLL
    for (int j = 0; j < kHeld; ++j)
      if (base + int64_t{j} * block_threads() < units) look(held[j].values);
    next();
    STMOE_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      const int64_t unit = base + int64_t{j} * block_threads();
      if (unit < units) f(held[j].values, unit * V);
    }
  }
}

template <class T>
STMOE_DEVICE T lowest() {
  if constexpr (sizeof(T) == 8)
    return -DBL_MAX;
  else
    return -FLT_MAX;
}

// What a thread knows of its part of a row.
template <class T>
struct Part {
  T max, exponentials = 0, sum = 0;  // of exp(x - max), of x
  bool has_equal_before = false;     // a logit before the target's that is not smaller
};

template <int V, class T>
STMOE_DEVICE Part<T> read_part(const T* row, int64_t size, int64_t target, T logit, bool has_sum) {
  Part<T> part;
  part.max = lowest<T>();
  T most = part.max;
  for_each_vector<V>(
      row, size,
      [&](const T* x) {
        STMOE_UNROLL
        for (int i = 0; i < V; ++i) most = x[i] > most ? x[i] : most;
      },
      [&] {
        part.exponentials *= fast_exp(part.max - most);
        part.max = most;
      },
      [&](const T* x, int64_t first) {
        STMOE_UNROLL
        for (int i = 0; i < V; ++i) {
          part.exponentials += fast_exp(x[i] - most);
          if (has_sum) part.sum += x[i];
          part.has_equal_before |= first + i < target && x[i] >= logit;
        }
      });
  return part;
}

// The loss of a row from its sums. `logit` is the target's.
STMOE_DEVICE double loss_of(double cross_entropy, double log_z, double sum, int64_t size,
                            const CrossEntropyOptions& options) {
  double loss = cross_entropy;
  if (options.label_smoothing > 0) {
    const double others = static_cast<double>(size - 1), on = 1 - options.label_smoothing;
    const double off = options.label_smoothing / others;
    const double all = static_cast<double>(size) * log_z - sum;  // -sum_v log p_v
    loss =
        on * cross_entropy + off * (all - cross_entropy) + on * log(on) + others * off * log(off);
  }
  return loss + options.z_loss * log_z * log_z;
}

// dx[v] = factor * exp(x[v] - max) - everywhere - (v == target ? at_target : 0).
template <class T>
struct RowGradient {
  T max, factor, everywhere, at_target;
};

template <class T>
STMOE_DEVICE RowGradient<T> row_gradient(double dtotal, int64_t size, double max, double log_z,
                                         double exponentials, const CrossEntropyOptions& options) {
  const double off =
      options.label_smoothing > 0 ? options.label_smoothing / static_cast<double>(size - 1) : 0;
  return {
      static_cast<T>(max), static_cast<T>(dtotal * (1 + 2 * options.z_loss * log_z) / exponentials),
      static_cast<T>(dtotal * off), static_cast<T>(dtotal * (1 - options.label_smoothing - off))};
}

// dx may be x.
template <int V, class G, class T>
STMOE_DEVICE void write_gradient(G* dx, const T* x, int64_t size, int64_t target,
                                 const RowGradient<T>& g) {
  for_each_vector<V>(
      x, size, [](const T*) {}, [] {},
      [&](const T* values, int64_t first) {
        Vector<G, V> out;
        STMOE_UNROLL
        for (int i = 0; i < V; ++i) {
          T value = g.factor * fast_exp(values[i] - g.max) - g.everywhere;
          if (first + i == target) value -= g.at_target;
          store_as(out.values[i], static_cast<Compute<G>>(value));
        }
        store_vector(dx + first, out);
      });
}

template <int V, class G>
STMOE_DEVICE void write_zeros(G* dx, int64_t size) {
  Vector<G, V> zeros;
  for (int i = 0; i < V; ++i) store_as(zeros.values[i], Compute<G>(0));
  for (int64_t unit = thread_index(); unit < size / V; unit += block_threads())
    store_vector(dx + unit * V, zeros);
}

STMOE_DEVICE void store_row(const RowPointers& rows, int64_t n, double loss, double cross_entropy,
                            double max, double log_z, bool is_correct) {
  rows.loss[n] = loss;
  rows.cross_entropy[n] = cross_entropy;
  rows.max[n] = max;
  rows.log_z[n] = log_z;
  rows.is_correct[n] = is_correct;
}

// The row's results, by the block; every thread gets the gradient's coefficients. A target outside
// the row, which only the device knows, makes the loss a NaN.
template <int V, class T>
STMOE_DEVICE RowGradient<T> row_loss(const RowPointers& rows, int64_t n, const T* row, int64_t size,
                                     int64_t target, double dtotal,
                                     const CrossEntropyOptions& options) {
  STMOE_SHARED(T, of_max, 32);
  STMOE_SHARED(double, of_exponentials, 32);
  STMOE_SHARED(double, of_sum, 32);
  STMOE_SHARED(int, of_equal, 32);
  STMOE_SHARED(RowGradient<T>, gradient, 1);
  const T logit = target > 0 && target < size ? row[target] : static_cast<T>(NAN);
  const Part<T> part = read_part<V>(row, size, target, logit, options.label_smoothing > 0);
  const T max = block_max(part.max, of_max);
  const double exponentials =
      block_sum(static_cast<double>(part.exponentials * fast_exp(part.max - max)), of_exponentials);
  const double sum = block_sum(static_cast<double>(part.sum), of_sum);
  const int equal_before = block_sum(static_cast<int>(part.has_equal_before), of_equal);
  if (thread_index() == 0) {
    const double log_z = static_cast<double>(max) + log(exponentials);
    const double cross_entropy = log_z - static_cast<double>(logit);
    store_row(rows, n, loss_of(cross_entropy, log_z, sum, size, options), cross_entropy,
              static_cast<double>(max), log_z, logit == max && equal_before == 0);
    *gradient =
        row_gradient<T>(dtotal, size, static_cast<double>(max), log_z, exponentials, options);
  }
  STMOE_SYNC_THREADS();
  return *gradient;
}

template <int V, class T>
STMOE_KERNEL forward_kernel(RowPointers rows, const T* logits, const int32_t* targets, int64_t size,
                            CrossEntropyOptions options) {
  const int64_t n = block_index();
  if (targets[n] == 0) {
    if (thread_index() == 0) store_row(rows, n, 0, 0, 0, 0, false);
    return;  // the whole block
  }
  row_loss<V>(rows, n, logits + n * size, size, targets[n], 0, options);
}

// dlogits may be logits.
template <int V, class G, class T>
STMOE_KERNEL forward_and_gradient_kernel(RowPointers rows, G* dlogits, const T* logits,
                                         const int32_t* targets, int64_t size, double dtotal,
                                         CrossEntropyOptions options) {
  const int64_t n = block_index();
  if (targets[n] == 0) {
    if (thread_index() == 0) store_row(rows, n, 0, 0, 0, 0, false);
    write_zeros<V>(dlogits + n * size, size);
    return;  // the whole block
  }
  const T* row = logits + n * size;
  const RowGradient<T> gradient = row_loss<V>(rows, n, row, size, targets[n], dtotal, options);
  write_gradient<V>(dlogits + n * size, row, size, targets[n], gradient);
}

// dlogits may be logits.
template <int V, class T>
STMOE_KERNEL backward_kernel(T* dlogits, const T* dtotal, const T* logits, const int32_t* targets,
                             const double* max, const double* log_z, int64_t size,
                             CrossEntropyOptions options) {
  const int64_t n = block_index();
  if (targets[n] == 0) {
    write_zeros<V>(dlogits + n * size, size);
    return;
  }
  const RowGradient<T> gradient = row_gradient<T>(static_cast<double>(*dtotal), size, max[n],
                                                  log_z[n], exp(log_z[n] - max[n]), options);
  write_gradient<V>(dlogits + n * size, logits + n * size, size, targets[n], gradient);
}

// One block adds up all rows in a fixed order; 21 bytes a row.
template <class T>
STMOE_KERNEL add_up_kernel(T* total, double* sums, const double* loss, const double* cross_entropy,
                           const uint8_t* is_correct, const int32_t* targets, int64_t count) {
  STMOE_SHARED(double, of_loss, 32);
  STMOE_SHARED(double, of_cross_entropy, 32);
  STMOE_SHARED(int64_t, of_targets, 32);
  STMOE_SHARED(int64_t, of_correct, 32);
  double all = 0, nats = 0;
  int64_t num_targets = 0, num_correct = 0;
  for (int64_t n = thread_index(); n < count; n += block_threads()) {
    all += loss[n];
    nats += cross_entropy[n];
    num_targets += targets[n] != 0;
    num_correct += is_correct[n];
  }
  all = block_sum(all, of_loss);
  nats = block_sum(nats, of_cross_entropy);
  num_targets = block_sum(num_targets, of_targets);
  num_correct = block_sum(num_correct, of_correct);
  if (thread_index() == 0) {
    *total = static_cast<T>(all);
    sums[0] = nats;
    sums[1] = static_cast<double>(num_targets);
    sums[2] = static_cast<double>(num_correct);
  }
}

void forward(const CrossEntropyRows& rows, const Tensor& logits_NV, const Tensor& targets_N,
             const CrossEntropyOptions& options) {
  const int64_t size = logits_NV.dim(1);
  visit_wide(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    visit_vector<T>(tiles_rows(kVectorOf<T>, size, logits_NV.raw()), [&](auto v) {
      launch(forward_kernel<decltype(v)::value, T>, {logits_NV.dim(0)}, kThreads, 0,
             pointers_of(rows), logits_NV.data<T>(), targets_N.data<int32_t>(), size, options);
    });
  });
}

template <class G, class T>
void forward_and_gradient_as(const CrossEntropyRows& rows, const Tensor& dlogits_NV,
                             const Tensor& logits_NV, const Tensor& targets_N, double dtotal,
                             const CrossEntropyOptions& options) {
  const int64_t size = logits_NV.dim(1);
  const bool in_vectors = tiles_rows(kVectorOf<T>, size, logits_NV.raw(), dlogits_NV.raw());
  visit_vector<T>(in_vectors, [&](auto v) {
    launch(forward_and_gradient_kernel<decltype(v)::value, G, T>, {logits_NV.dim(0)}, kThreads, 0,
           pointers_of(rows), dlogits_NV.data<G>(), logits_NV.data<T>(), targets_N.data<int32_t>(),
           size, dtotal, options);
  });
}

void forward_and_gradient(const CrossEntropyRows& rows, const Tensor& dlogits_NV,
                          const Tensor& logits_NV, const Tensor& targets_N, double dtotal,
                          const CrossEntropyOptions& options) {
  visit_wide(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (dlogits_NV.dtype() == DType::bf16)
      forward_and_gradient_as<bf16, T>(rows, dlogits_NV, logits_NV, targets_N, dtotal, options);
    else
      forward_and_gradient_as<T, T>(rows, dlogits_NV, logits_NV, targets_N, dtotal, options);
  });
}

void backward(const Tensor& dlogits_NV, const Tensor& dtotal, const Tensor& logits_NV,
              const Tensor& targets_N, const CrossEntropyRows& rows,
              const CrossEntropyOptions& options) {
  const int64_t size = logits_NV.dim(1);
  visit_wide(logits_NV.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const bool in_vectors = tiles_rows(kVectorOf<T>, size, logits_NV.raw(), dlogits_NV.raw());
    visit_vector<T>(in_vectors, [&](auto v) {
      launch(backward_kernel<decltype(v)::value, T>, {logits_NV.dim(0)}, kThreads, 0,
             dlogits_NV.data<T>(), dtotal.data<T>(), logits_NV.data<T>(), targets_N.data<int32_t>(),
             rows.max_N.data<double>(), rows.log_z_N.data<double>(), size, options);
    });
  });
}

void add_up(const Tensor& total, const Tensor& sums, const CrossEntropyRows& rows,
            const Tensor& targets_N) {
  visit_wide(total.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(add_up_kernel<T>, {1}, kSumThreads, 0, total.data<T>(), sums.data<double>(),
           rows.loss_N.data<double>(), rows.cross_entropy_N.data<double>(),
           rows.is_correct_N.data<uint8_t>(), targets_N.data<int32_t>(), targets_N.numel());
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(CrossEntropyKernels, STMOE_GPU,
                       {gpu::forward, gpu::forward_and_gradient, gpu::backward, gpu::add_up})

}  // namespace stmoe
