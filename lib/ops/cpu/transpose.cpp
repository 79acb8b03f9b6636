// SPDX-License-Identifier: Apache-2.0
// `in` lies in memory as rows along its columns: element (r, c) at c * col_stride + r. Squares of
// kLanes words are transposed in registers; a word is one f32 or two bf16 of neighbouring columns,
// which become neighbours in a row of `out`.
#include "lib/ops/transpose.h"

#include <bit>

#include "lib/base/threads.h"
#include "lib/ops/cpu/vector.h"

namespace stmoe {
namespace {

constexpr int64_t kSquare = kLanes<float>;

template <class T>
inline constexpr int64_t kPerWord = sizeof(float) / sizeof(T);

// kSquare words, one of each row from `at` on.
template <class T>
Vector<float> load_words(const T* at, int64_t col_stride) {
  if constexpr (std::is_same_v<T, bf16>) {
    const auto low = std::bit_cast<Vector<uint32_t>>(load_wide(at)) >> 16;
    return std::bit_cast<Vector<float>>(
        low | std::bit_cast<Vector<uint32_t>>(load_wide(at + col_stride)));
  } else {
    static_cast<void>(col_stride);
    return load(at);
  }
}

template <class T>
void transpose_square(T* out, int64_t out_row, const T* in, int64_t col_stride) {
  Vector<float> words[kSquare];
  for (int64_t j = 0; j < kSquare; ++j)
    words[j] = load_words(in + j * kPerWord<T> * col_stride, col_stride);
  transpose<float>(words);
  for (int64_t j = 0; j < kSquare; ++j)
    store(reinterpret_cast<float*>(out + j * out_row), words[j]);
}

// Columns [begin, end) of one matrix.
template <class T>
void transpose_columns(const MatrixView& out_view, const MatrixView& in_view, int64_t begin,
                       int64_t end) {
  T* out = reinterpret_cast<T*>(out_view.data);
  const T* in = reinterpret_cast<const T*>(in_view.data);
  const int64_t rows = in_view.rows, out_row = out_view.row_stride, stride = in_view.col_stride;
  constexpr int64_t kColumns = kSquare * kPerWord<T>;
  const int64_t whole_rows = rows / kSquare * kSquare;
  const int64_t whole_end = begin + (end - begin) / kColumns * kColumns;
  for (int64_t c = begin; c < whole_end; c += kColumns)
    for (int64_t r = 0; r < whole_rows; r += kSquare)
      transpose_square(out + r * out_row + c, out_row, in + c * stride + r, stride);
  for (int64_t c = begin; c < end; ++c)
    for (int64_t r = c < whole_end ? whole_rows : 0; r < rows; ++r)
      out[r * out_row + c] = in[c * stride + r];
}

void copy_cpu(const MatrixView& out, const MatrixView& in) {
  constexpr int64_t kColumns = 64;
  const int64_t chunks = num_chunks(in.cols, kColumns);
  parallel_for(in.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t matrix = i / chunks, first = i % chunks * kColumns;
      const int64_t last = std::min(first + kColumns, in.cols);
      const MatrixView to = out.part(matrix, 0, out.rows, 0, out.cols),
                       from = in.part(matrix, 0, in.rows, 0, in.cols);
      if (in.dtype == DType::bf16)
        transpose_columns<bf16>(to, from, first, last);
      else
        transpose_columns<float>(to, from, first, last);
    }
  });
}

STMOE_REGISTER_KERNELS(TransposeKernels, cpu, {copy_cpu})

}  // namespace

}  // namespace stmoe
