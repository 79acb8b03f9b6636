// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/copy.h"

#include <algorithm>

#include "lib/base/threads.h"
#include "lib/tensor/cpu/convert.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 15;

// Element offset of the `index`-th element in row-major order of a strided view.
int64_t offset_of(const Tensor& view, int64_t index) {
  int64_t offset = 0;
  for (int d = view.rank() - 1; d >= 0; --d) {
    offset += index % view.dim(d) * view.stride(d);
    index /= view.dim(d);
  }
  return offset;
}

template <class To, class From>
void copy_elements(const Tensor& to, const Tensor& from) {
  To* out = to.data<To>();
  const From* in = from.data<From>();
  const int64_t row = to.rank() ? to.dim(-1) : 1;
  const int64_t rows = row ? to.numel() / row : 0;
  const int64_t out_step = to.rank() ? to.stride(-1) : 1,
                in_step = from.rank() ? from.stride(-1) : 1;
  const bool flat = to.is_contiguous() && from.is_contiguous();
  if (flat) {
    parallel_for(to.numel(), kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = convert<To>(in[i]);
    });
    return;
  }
  parallel_for(rows, std::max<int64_t>(1, kChunk / std::max<int64_t>(1, row)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   To* out_row = out + offset_of(to, r * row);
                   const From* in_row = in + offset_of(from, r * row);
                   for (int64_t c = 0; c < row; ++c)
                     out_row[c * out_step] = convert<To>(in_row[c * in_step]);
                 }
               });
}

void copy_cpu(const Tensor& to, const Tensor& from) {
  visit_any(to.dtype(), [&](auto to_tag) {
    visit_any(from.dtype(), [&](auto from_tag) {
      copy_elements<decltype(to_tag), decltype(from_tag)>(to, from);
    });
  });
}

void fill_cpu(const Tensor& to, double value) {
  visit_any(to.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = to.data<T>();
    parallel_for(to.numel(), kChunk, [&](int64_t begin, int64_t end) {
      std::fill(out + begin, out + end, convert<T>(value));
    });
  });
}

STMOE_REGISTER_KERNELS(CopyKernels, cpu, {copy_cpu, fill_cpu})

}  // namespace
}  // namespace stmoe
