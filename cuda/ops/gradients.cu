// SPDX-License-Identifier: Apache-2.0
// Sums of squares of many tensors in two launches, whatever their sizes: a block has a chunk of one
// of them, then a block adds up the chunks of a tensor. 4 bytes of each f32 element. Squares are
// added in f64, which costs less than the reading does; 128 elements a thread, four vectors of them
// under way at once. The tensors' addresses travel as the kernels' arguments, 120 at a time.
#include <algorithm>

#include "cuda/device/map.h"
#include "cuda/device/warp.h"
#include "lib/optim/gradients.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kMostTensors = 120;
constexpr int64_t kChunk = 1 << 15;

struct Spans {
  const void* data[kMostTensors];
  int64_t count[kMostTensors];
  int64_t first_chunk[kMostTensors + 1];  // of all chunks; the last: their number
  int size = 0;
};

STMOE_DEVICE int span_of_chunk(const Spans& spans, int64_t chunk) {
  int low = 0, high = spans.size - 1;  // the last span that begins at or before the chunk
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (spans.first_chunk[middle] <= chunk)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

template <class T>
STMOE_DEVICE double square(const T& x) {
  const auto value = static_cast<double>(load_as(x));
  return value * value;
}

// What is not a multiple of sixteen bytes, or not aligned to them, is read one by one.
template <class T>
STMOE_KERNEL sum_chunks(double* partial, Spans spans) {
  constexpr int V = kVectorOf<T>, kHeld = 4;
  STMOE_SHARED(double, sums, 32);
  const int span = span_of_chunk(spans, block_index());
  const int64_t begin = (block_index() - spans.first_chunk[span]) * kChunk;
  const int64_t left = spans.count[span] - begin, count = left < kChunk ? left : kChunk;
  const T* x = static_cast<const T*>(spans.data[span]) + begin;
  const int64_t vectors = reinterpret_cast<uintptr_t>(x) % 16 == 0 ? count / V : 0;
  double sum = 0;
  for (int64_t first = thread_index(); first < vectors; first += int64_t{kHeld} * block_threads()) {
    Vector<T, V> held[kHeld];
    STMOE_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      const int64_t at = first + int64_t{j} * block_threads();
      if (at < vectors) held[j] = load_vector<V>(x + at * V);
    }
    STMOE_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      if (first + int64_t{j} * block_threads() >= vectors) continue;
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) sum += square(held[j].values[i]);
    }
  }
  for (int64_t at = vectors * V + thread_index(); at < count; at += block_threads())
    sum += square(x[at]);
  sum = block_sum(sum, sums);
  if (thread_index() == 0) partial[block_index()] = sum;
}

// A block has a tensor; its chunks are added in a fixed order.
STMOE_KERNEL add_chunks(double* sums, const double* partial, Spans spans) {
  STMOE_SHARED(double, of_warps, 32);
  const int64_t span = block_index();
  double sum = 0;
  for (int64_t chunk = spans.first_chunk[span] + thread_index();
       chunk < spans.first_chunk[span + 1]; chunk += block_threads())
    sum += partial[chunk];
  sum = block_sum(sum, of_warps);
  if (thread_index() == 0) sums[span] = sum;
}

struct Scale {
  double factor;
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class C>
  STMOE_METHOD void of(C* y, const C* x) const {
    y[0] = x[0] * static_cast<C>(factor);
  }
};

// As many tensors of one element type as fit into one launch, from `first` on.
Spans spans_from(std::span<const Tensor> values, size_t first) {
  Spans spans;
  spans.first_chunk[0] = 0;
  const DType dtype = values[first].dtype();
  for (size_t i = first; i < values.size() && spans.size < kMostTensors; ++i) {
    if (values[i].dtype() != dtype) break;
    spans.data[spans.size] = values[i].raw();
    spans.count[spans.size] = values[i].numel();
    const int64_t chunks = (values[i].numel() + kChunk - 1) / kChunk;
    spans.first_chunk[spans.size + 1] = spans.first_chunk[spans.size] + chunks;
    ++spans.size;
  }
  return spans;
}

void sums_of_squares(const Tensor& sums, std::span<const Tensor> values) {
  for (size_t first = 0; first < values.size();) {
    const Spans spans = spans_from(values, first);
    const int64_t chunks = spans.first_chunk[spans.size];
    const Tensor partial = Tensor::empty({std::max<int64_t>(1, chunks)}, DType::f64, sums.device());
    visit_floating(values[first].dtype(), [&](auto tag) {
      launch(sum_chunks<decltype(tag)>, {chunks}, kThreads, 0, partial.data<double>(), spans);
    });
    launch(add_chunks, {spans.size}, kThreads, 0, sums.data<double>() + first,
           partial.data<double>(), spans);
    first += static_cast<size_t>(spans.size);
  }
}

void scale(const Tensor& values, double factor) {
  visit_floating(values.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_elements<Scale, T>({values.data<T>()}, {values.data<T>()}, values.numel(), Scale{factor});
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(GradientKernels, STMOE_GPU, {gpu::sums_of_squares, gpu::scale})

}  // namespace stmoe
