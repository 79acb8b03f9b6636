// SPDX-License-Identifier: Apache-2.0
// y[n] = table[ids[n]]. The gradient sums rows in the order of n, so it does not depend on threads.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct EmbeddingKernels {
  static constexpr const char* kOp = "embedding";
  void (*forward)(const Tensor& y, const Tensor& table, const Tensor& ids);
  void (*backward)(const Tensor& dtable, const Tensor& dy, const Tensor& ids);
};

// table_VD floating, ids i32 of any shape with values in [0, V) (else BugError with the position);
// y has the shape of ids with D appended, in element type `dtype`. The gradient has the table's
// type.
Var embedding(const Var& table_VD, const Tensor& ids, DType dtype);

}  // namespace stmoe
