// SPDX-License-Identifier: Apache-2.0
// A dropout mask as kernels draw it: options and a shape turned into numbers (internal to the ops).
// The tensor is seen as [outer, shared, inner]; the mask has [outer, inner] elements, numbered from
// `first` on, and an element is kept when the upper 24 bits of its random word are at least the
// threshold.
#pragma once

#include "lib/ops/dropout.h"

namespace stmoe {

struct DropoutMask {
  int64_t outer = 1, shared = 1, inner = 1;
  uint64_t first = 0;
  RandomKey key;
  uint32_t threshold = 0;  // 0: everything is kept
  double factor = 1;       // of what is kept: 1 / (1 - rate)

  bool is_on() const { return threshold > 0; }
};

// Throws BugError when the rate is not in [0, 1) or the shape has no such broadcast dimension; `op`
// names the caller.
DropoutMask dropout_mask(const char* op, const Shape& shape, const Dropout& dropout);

}  // namespace stmoe
