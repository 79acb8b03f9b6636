// SPDX-License-Identifier: Apache-2.0
// Matrix products, all accumulated in f32 (f64 for f64). When x is bf16 and w is f32, w is rounded
// to bf16 for the product and its gradient is f32.
#pragma once

#include <optional>

#include "lib/autograd/var.h"
#include "lib/ops/dispatch_plan.h"

namespace stmoe {

// y = x w: x [..., in], w_IO [in, out] -> [..., out] in x's type, or in `result` (f32 logits of
// bf16 activations).
Var linear(const Var& x, const Var& w_IO, std::optional<DType> result = std::nullopt);

// y = x w^T: x [..., in], w_OI [out, in]: the tied output projection.
Var linear_transposed(const Var& x, const Var& w_OI, std::optional<DType> result = std::nullopt);

// Rows of several experts one after another: y[r] = x[r] w[e] for the rows of expert e, x_RI [rows,
// in], w_EIO [experts, in, out] -> [rows, out]. Compact: rows from first[experts] on belong to
// nobody and give zeros; experts may have no rows. Padded: one batched product, unfilled rows are
// multiplied as any (they are zeros, and give zeros); nothing is read on the host.
Var expert_linear(const Var& x_RI, const Var& w_EIO, const ExpertRanges& ranges);

}  // namespace stmoe
