// SPDX-License-Identifier: Apache-2.0
// The token table shared by both stacks and, when tied, by the output projection. No sqrt(d)
// multiplier on the way in.
#pragma once

#include "lib/nn/parameters.h"
#include "lib/ops/embedding.h"
#include "lib/ops/linear.h"

namespace stmoe {

class Embedding {
 public:
  Embedding(const ParameterScope& scope, int64_t vocabulary_size, int64_t width,
            const Initializer& initializer)
      : table_VD_(scope.create("embedding", {vocabulary_size, width}, initializer, 0,
                               WeightUse::product)) {}
  // ids i32 [...] -> [..., D] in `dtype`.
  Var forward(const Tensor& ids, DType dtype, const Dropout& dropout = {}) const {
    return embedding(table_VD_, ids, dtype, dropout);
  }
  // h [..., D] -> scores of all tokens [..., V] in `dtype`.
  Var logits(const Var& h, DType dtype) const { return linear_transposed(h, table_VD_, dtype); }
  const Var& table() const { return table_VD_; }

 private:
  Var table_VD_;
};

}  // namespace stmoe
