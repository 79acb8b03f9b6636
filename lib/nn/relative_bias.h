// SPDX-License-Identifier: Apache-2.0
// The learned bias of attention scores by relative position: one table per stack, shared by its
// self-attention layers. Positions are indices in the sequence; packing does not restart them.
#pragma once

#include "lib/nn/parameters.h"
#include "lib/ops/relative_bias.h"

namespace stmoe {

// bias_HR[h, r] belongs to key position - query position = first_relative + r.
struct PositionBias {
  Var bias_HR;
  int64_t first_relative = 0;
};

class RelativeBias {
 public:
  RelativeBias(const ParameterScope& scope, int64_t num_heads, const RelativeBuckets& buckets,
               const Initializer& initializer)
      : buckets_(buckets),
        table_HB_(scope.create("table", {num_heads, buckets.num_buckets}, initializer)) {}

  // For all pairs among `length` positions; keys after their query are left out when the stack is
  // causal.
  PositionBias forward(int64_t length) const {
    const int64_t last = buckets_.is_bidirectional ? length - 1 : 0;
    return {relative_bias(table_HB_, 1 - length, length + last, buckets_), 1 - length};
  }

 private:
  RelativeBuckets buckets_;
  Var table_HB_;
};

}  // namespace stmoe
