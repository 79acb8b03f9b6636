// SPDX-License-Identifier: Apache-2.0
// y[n] = dropout(table[ids[n]]), rounded once. The gradient sums rows in the order of n, so it does
// not depend on threads; the mask is drawn again.
#pragma once

#include "lib/autograd/var.h"
#include "lib/ops/dropout_mask.h"

namespace stmoe {

struct EmbeddingKernels {
  static constexpr const char* kOp = "embedding";
  void (*forward)(const Tensor& y, const Tensor& table, const Tensor& ids, const DropoutMask& mask);
  // dtable (+)= the sums of the rows of dy; when it accumulates, only rows that ids name are read
  // and written.
  void (*backward)(const Tensor& dtable, const Tensor& dy, const Tensor& ids,
                   const DropoutMask& mask, bool accumulate);
};

// table_VD floating, ids i32 of any shape with values in [0, V) (on a CPU else BugError with the
// position); y has the shape of ids with D appended, in element type `dtype`. The mask is that of
// y; it is not shared along the last dimension. The gradient has the table's type.
Var embedding(const Var& table_VD, const Tensor& ids, DType dtype, const Dropout& dropout = {});

}  // namespace stmoe
