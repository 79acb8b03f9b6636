// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dropout.h"

#include <algorithm>
#include <cmath>

#include "lib/base/random_words.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

// x as [outer, shared, inner]: the mask has [outer, inner] elements, from index `first` on.
struct MaskLayout {
  int64_t outer = 1, shared = 1, inner = 1;
  uint64_t first = 0;
};

MaskLayout layout_of(const Shape& shape, const Dropout& dropout) {
  MaskLayout layout;
  for (int i = 0; i < shape.rank(); ++i)
    (i == dropout.broadcast_dim  ? layout.shared
     : i < dropout.broadcast_dim ? layout.outer
                                 : layout.inner) *= shape[i];
  if (shape.rank() > 0 && dropout.broadcast_dim != 0)
    layout.first =
        static_cast<uint64_t>(dropout.first_row * (layout.outer * layout.inner / shape[0]));
  return layout;
}

constexpr int64_t kTile = 1024, kRows = 64;

// Masks and scales rows [row, row_end) x columns [column, column + width) of one outer block.
template <class T>
void apply_tile(T* y, const T* x, const uint32_t* bits, uint32_t threshold, Compute<T> factor,
                int64_t width) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) {
    const Compute<T> kept = factor * static_cast<Compute<T>>(x[i]);
    y[i] = static_cast<T>((bits[i] >> 8) >= threshold ? kept : Compute<T>(0));
  }
}

template <class T>
void apply(T* y, const T* x, const MaskLayout& layout, const Dropout& dropout) {
  const auto threshold = static_cast<uint32_t>(std::ceil(dropout.rate * 0x1p24));
  const auto factor = static_cast<Compute<T>>(1.0 / (1.0 - dropout.rate));
  const int64_t row_tiles = num_chunks(layout.shared, kRows);
  const int64_t column_tiles = num_chunks(layout.inner, kTile);
  const int64_t tile_elements = std::min(layout.shared, kRows) * std::min(layout.inner, kTile);
  auto run = [&](int64_t begin, int64_t end) {
    uint32_t bits[kTile];
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t column = tile % column_tiles * kTile;
      const int64_t row = tile / column_tiles % row_tiles * kRows;
      const int64_t outer = tile / column_tiles / row_tiles;
      const int64_t width = std::min(kTile, layout.inner - column);
      fill_random_words(dropout.key,
                        layout.first + static_cast<uint64_t>(outer * layout.inner + column), bits,
                        width);
      for (int64_t r = row; r < std::min(layout.shared, row + kRows); ++r) {
        const int64_t at = (outer * layout.shared + r) * layout.inner + column;
        apply_tile(y + at, x + at, bits, threshold, factor, width);
      }
    }
  };
  parallel_for(layout.outer * row_tiles * column_tiles,
               std::max<int64_t>(1, (1 << 15) / tile_elements), run);
}

void apply_cpu(const Tensor& y, const Tensor& x, const Dropout& dropout) {
  if (x.numel() == 0) return;
  const MaskLayout layout = layout_of(x.shape(), dropout);
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    apply(y.data<T>(), x.data<T>(), layout, dropout);
  });
}

STMOE_REGISTER_KERNELS(DropoutKernels, cpu, {apply_cpu})

}  // namespace

}  // namespace stmoe
