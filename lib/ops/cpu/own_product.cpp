// SPDX-License-Identifier: Apache-2.0
// Blocks of B [kBlockDepth, one panel] are packed, blocks of A [kBlockRows, kBlockDepth] too where
// the packed element is another than the matrix's (bf16 as pairs or as f32); tile_product
// multiplies them into a padded block of C.
#include "lib/ops/own_product.h"

#include "lib/ops/cpu/tile_kernel.h"
#include "lib/ops/scratch.h"

namespace stmoe {
namespace {

constexpr int64_t kBlockRows = 96, kBlockDepth = 256;

// Packed element of `view` whose depth runs along `depth` (and the next one for a pair; beyond the
// end: 0).
template <class Packed, class T>
Packed packed_element(const T* at, int64_t stride, int64_t left) {
  if constexpr (std::is_same_v<Packed, Bf16Pair>) {
    const uint32_t low = at[0].bits, high = left > 1 ? at[stride].bits : 0;
    return {low | high << 16};
  } else {
    return static_cast<Packed>(at[0]);
  }
}

template <class Packed, class T>
void pack_a(Packed* out, const MatrixView& a, int64_t row, int64_t rows, int64_t first,
            int64_t depth) {
  constexpr int64_t kStep = kPackedDepth<Packed>;
  const T* data = reinterpret_cast<const T*>(a.data);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < depth; k += kStep)
      *out++ = packed_element<Packed>(data + (row + r) * a.row_stride + (first + k) * a.col_stride,
                                      a.col_stride, depth - k);
}

template <class Packed, class T>
void pack_b(Packed* out, const MatrixView& b, int64_t first, int64_t depth, int64_t col,
            int64_t cols) {
  constexpr int64_t kStep = kPackedDepth<Packed>;
  const T* data = reinterpret_cast<const T*>(b.data);
  for (int64_t k = 0; k < depth; k += kStep) {
    const T* at = data + (first + k) * b.row_stride + col * b.col_stride;
    for (int64_t j = 0; j < cols; ++j)
      *out++ = packed_element<Packed>(at + j * b.col_stride, b.row_stride, depth - k);
    for (int64_t j = cols; j < kPanel<Packed>; ++j) *out++ = Packed{};
  }
}

template <class C, class Sum>
void write_back(const MatrixView& c, int64_t row, int64_t rows, int64_t col, int64_t cols,
                const Sum* sums, int64_t width, bool accumulate) {
  C* data = reinterpret_cast<C*>(c.data);
  for (int64_t r = 0; r < rows; ++r) {
    C* out = data + (row + r) * c.row_stride + col;
    const Sum* in = sums + r * width;
    if (accumulate)
      for (int64_t j = 0; j < cols; ++j) out[j] = static_cast<C>(static_cast<Sum>(out[j]) + in[j]);
    else
      for (int64_t j = 0; j < cols; ++j) out[j] = static_cast<C>(in[j]);
  }
}

template <class T, class C>
void product_of(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  using Packed = typename PackedOf<T>::type;
  using Sum = TileSum<Packed>;
  constexpr int64_t kStep = kPackedDepth<Packed>, kWidth = kPanel<Packed>;
  const int64_t block_packed = kBlockDepth / kStep;
  Scratch scratch;
  Packed* a_block = scratch.take<Packed>(kBlockRows * block_packed);
  Packed* b_block = scratch.take<Packed>(block_packed * kWidth);
  Sum* sums = scratch.take<Sum>(kBlockRows * kWidth);
  for (int64_t row = 0; row < c.rows; row += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, c.rows - row);
    for (int64_t col = 0; col < c.cols; col += kWidth) {
      const int64_t cols = std::min(kWidth, c.cols - col);
      for (int64_t k = 0; k < a.cols; k += kBlockDepth) {
        const int64_t depth = std::min(kBlockDepth, a.cols - k);
        const int64_t packed = (depth + kStep - 1) / kStep;
        pack_b<Packed, T>(b_block, b, k, depth, col, cols);
        if constexpr (std::is_same_v<Packed, T>) {
          const T* in_place =
              reinterpret_cast<const T*>(a.data) + row * a.row_stride + k * a.col_stride;
          tile_product(sums, kWidth, in_place, a.row_stride, a.col_stride, b_block, rows, depth,
                       k > 0);
        } else {
          pack_a<Packed, T>(a_block, a, row, rows, k, depth);
          tile_product(sums, kWidth, a_block, packed, int64_t{1}, b_block, rows, packed, k > 0);
        }
      }
      if (a.cols == 0) std::fill_n(sums, rows * kWidth, Sum{});
      write_back<C>(c, row, rows, col, cols, sums, kWidth, accumulate);
    }
  }
}

void multiply_cpu(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  visit_floating(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (c.dtype == a.dtype)
      product_of<T, T>(c, a, b, accumulate);
    else
      product_of<T, Compute<T>>(c, a, b, accumulate);
  });
}

STMOE_REGISTER_KERNELS(OwnProductKernels, cpu, {multiply_cpu})

}  // namespace

}  // namespace stmoe
