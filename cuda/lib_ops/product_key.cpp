// SPDX-License-Identifier: Apache-2.0
#include "cuda/lib_ops/product_key.h"

#include <algorithm>

namespace stmoe::gpu {
namespace {

// Kernels differ in what they need of addresses below these; 256 is what whole tensors have.
int alignment_of(const MatrixView& view) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(view.data);
  if (view.batch > 1) bits |= static_cast<uintptr_t>(view.batch_stride) * size_of(view.dtype);
  for (int alignment : {256, 16, 8, 4})
    if (bits % static_cast<uintptr_t>(alignment) == 0) return alignment;
  return 2;
}

std::string text_of(const char* name, const OperandKey& key) {
  return format(" {}{} {}+{}@{}", name, key.is_transposed ? "^T" : "", key.leading,
                key.batch_stride, key.alignment);
}

}  // namespace

std::optional<OperandKey> operand_key(const MatrixView& view) {
  OperandKey key;
  const bool one_row = view.rows <= 1, one_column = view.cols <= 1;
  if ((view.col_stride == 1 || one_column) && (one_row || view.row_stride >= view.cols)) {
    key.leading = one_row ? view.cols : view.row_stride;
  } else if ((view.row_stride == 1 || one_row) && (one_column || view.col_stride >= view.rows)) {
    key.is_transposed = true;
    key.leading = one_column ? view.rows : view.col_stride;
  } else {
    return std::nullopt;
  }
  key.leading = std::max<int64_t>(key.leading, 1);
  key.batch_stride = view.batch > 1 ? view.batch_stride : 0;
  key.alignment = alignment_of(view);
  return key;
}

ProductKey product_key(const Product& product, bool accumulate) {
  const auto& [c, a, b] = product;
  ProductKey key;
  key.operands = a.dtype;
  key.result = c.dtype;
  key.m = c.rows;
  key.n = c.cols;
  key.k = a.cols;
  key.batch = c.batch;
  key.a = operand_key(a).value();
  key.b = operand_key(b).value();
  key.c = operand_key(c).value();
  STMOE_CHECK(!key.c.is_transposed, "product: the rows of the result are not contiguous");
  key.accumulates = accumulate;
  return key;
}

std::string ProductKey::text() const {
  return format("{}>{} {}x{}x{} batch {}{}{}{}{}", name_of(operands), name_of(result), m, n, k,
                batch, text_of("A", a), text_of("B", b), text_of("C", c),
                accumulates ? " add" : "");
}

double ProductKey::flops() const {
  return 2.0 * static_cast<double>(batch) * static_cast<double>(m) * static_cast<double>(n) *
         static_cast<double>(k);
}

}  // namespace stmoe::gpu
