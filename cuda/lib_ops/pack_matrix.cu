// SPDX-License-Identifier: Apache-2.0
#include "cuda/lib_ops/pack_matrix.h"
#include "cuda/runtime/launch.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

// An element a thread, in the order of the copy: writes are whole lines, reads are what the strides
// make of them. The elements are only moved, so an unsigned integer of their size stands for them.
template <class T>
STMOE_KERNEL pack_elements(T* to, const T* from, int64_t count, int64_t rows, int64_t cols,
                           int64_t batch_stride, int64_t row_stride, int64_t col_stride) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    const int64_t col = i % cols, row = i / cols % rows, matrix = i / cols / rows;
    to[i] = from[matrix * batch_stride + row * row_stride + col * col_stride];
  }
}

// The finaliser of splitmix64 on the element's number.
template <class T>
STMOE_KERNEL random_elements(T* to, int64_t count) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    store_as(to[i], static_cast<float>(static_cast<int32_t>(x >> 40) - (1 << 23)) /
                        static_cast<float>(1 << 23));
  }
}

template <class T>
void pack(const Tensor& to, const MatrixView& from) {
  launch(pack_elements<T>, blocks_for(to.numel(), kThreads), kThreads, 0,
         reinterpret_cast<T*>(to.raw()), reinterpret_cast<const T*>(from.data), to.numel(),
         from.rows, from.cols, from.batch_stride, from.row_stride, from.col_stride);
}

}  // namespace

Tensor packed(const MatrixView& from) {
  const Tensor to = Tensor::empty({from.batch, from.rows, from.cols}, from.dtype, from.device);
  switch (size_of(from.dtype)) {
    case 2:
      pack<uint16_t>(to, from);
      break;
    case 4:
      pack<uint32_t>(to, from);
      break;
    default:
      pack<uint64_t>(to, from);
  }
  return to;
}

void fill_random(const Tensor& to) {
  visit_floating(to.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(random_elements<T>, blocks_for(to.numel(), kThreads), kThreads, 0, to.data<T>(),
           to.numel());
  });
}

}  // namespace stmoe::gpu
