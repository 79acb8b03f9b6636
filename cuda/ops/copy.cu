// SPDX-License-Identifier: Apache-2.0
// Copies between views of any strides and element types, and fills. One element a thread; a thread
// of a contiguous copy reads and writes neighbours' addresses, so that rows of a warp are whole
// lines. Strided dimensions cost a division each: the ops use it for small tensors only.
#include "cuda/runtime/launch.h"
#include "lib/tensor/copy.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kMostDims = 5;

// A view's dimensions, outermost first; 0 dimensions: contiguous.
struct Strides {
  int rank = 0;
  int64_t size[kMostDims] = {}, to[kMostDims] = {}, from[kMostDims] = {};
};

template <class To, class From>
STMOE_DEVICE void convert(To& to, const From& from) {
  if constexpr (std::is_same_v<To, From>)
    to = from;
  else if constexpr (std::is_same_v<From, bf16>)
    convert(to, load_as(from));
  else if constexpr (std::is_same_v<To, bf16>)
    store_as(to, static_cast<float>(from));
  else
    to = static_cast<To>(from);
}

// Reads and writes each element once.
template <class To, class From>
STMOE_KERNEL copy_elements(To* to, const From* from, int64_t count, Strides strides) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) {
    int64_t to_at = i, from_at = i;
    if (strides.rank > 0) {
      to_at = from_at = 0;
      int64_t rest = i;
      for (int d = strides.rank - 1; d >= 0; --d) {
        const int64_t place = rest % strides.size[d];
        rest /= strides.size[d];
        to_at += place * strides.to[d];
        from_at += place * strides.from[d];
      }
    }
    convert(to[to_at], from[from_at]);
  }
}

template <class T>
STMOE_KERNEL fill_elements(T* to, int64_t count, double value) {
  const int64_t i = block_index() * block_threads() + thread_index();
  if (i < count) convert(to[i], value);
}

template <class F>
void visit_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i64:
      return f(int64_t{});
    case DType::i32:
      return f(int32_t{});
    case DType::u8:
      return f(uint8_t{});
    default:
      return visit_floating(dtype, f);
  }
}

Strides strides_of(const Tensor& to, const Tensor& from) {
  Strides strides;
  if (to.is_contiguous() && from.is_contiguous()) return strides;
  STMOE_CHECK(to.rank() <= kMostDims, "copy: {} dimensions", to.rank());
  strides.rank = to.rank();
  for (int d = 0; d < to.rank(); ++d) {
    strides.size[d] = to.dim(d);
    strides.to[d] = to.stride(d);
    strides.from[d] = from.stride(d);
  }
  return strides;
}

void copy(const Tensor& to, const Tensor& from) {
  visit_element(to.dtype(), [&](auto to_tag) {
    using To = decltype(to_tag);
    visit_element(from.dtype(), [&](auto from_tag) {
      using From = decltype(from_tag);
      launch(copy_elements<To, From>, blocks_for(to.numel(), kThreads), kThreads, 0, to.data<To>(),
             from.data<From>(), to.numel(), strides_of(to, from));
    });
  });
}

void fill(const Tensor& to, double value) {
  visit_element(to.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(fill_elements<T>, blocks_for(to.numel(), kThreads), kThreads, 0, to.data<T>(),
           to.numel(), value);
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(CopyKernels, STMOE_GPU, {gpu::copy, gpu::fill})

}  // namespace stmoe
