// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/dropout_mask.h"

#include <algorithm>
#include <cmath>

namespace stmoe {

DropoutMask dropout_mask(const char* op, const Shape& shape, const Dropout& dropout) {
  STMOE_CHECK(dropout.rate >= 0 && dropout.rate < 1, "{}: rate {}", op, dropout.rate);
  STMOE_CHECK(dropout.broadcast_dim >= -1 && dropout.broadcast_dim < std::max(1, shape.rank()),
              "{}: broadcast dimension {} of {}", op, dropout.broadcast_dim, shape.text());
  DropoutMask mask;
  for (int i = 0; i < shape.rank(); ++i)
    (i == dropout.broadcast_dim  ? mask.shared
     : i < dropout.broadcast_dim ? mask.outer
                                 : mask.inner) *= shape[i];
  if (shape.rank() > 0 && shape[0] > 0 && dropout.broadcast_dim != 0)
    mask.first = static_cast<uint64_t>(dropout.first_row * (mask.outer * mask.inner / shape[0]));
  mask.key = dropout.key;
  mask.threshold = static_cast<uint32_t>(std::ceil(dropout.rate * 0x1p24));
  mask.factor = 1.0 / (1.0 - dropout.rate);
  return mask;
}

}  // namespace stmoe
