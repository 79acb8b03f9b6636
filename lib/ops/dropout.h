// SPDX-License-Identifier: Apache-2.0
// Inverted dropout: y = x * mask / (1 - rate), mask ~ Bernoulli(1 - rate). The mask is a pure function of (key, global
// element index): it is drawn again in the backward pass, never stored.
#pragma once

#include "lib/autograd/var.h"
#include "lib/base/random.h"

namespace stmoe {

struct Dropout {
  double rate = 0;  // 0 <= rate < 1; 0 is the identity
  RandomKey key;
  // Dimensions along which one mask is shared (flaxformer and mesh share along the sequence: {1} for [B, L, D]).
  int broadcast_dim = -1;
  // Index of the first element's row (dimension 0) in the global batch, so that ranks draw different masks.
  int64_t first_row = 0;
};

struct DropoutKernels {
  static constexpr const char* kOp = "dropout";
  void (*apply)(const Tensor& y, const Tensor& x, const Dropout& dropout);
};

// x of any shape, floating; y has its shape and type.
Var dropout(const Var& x, const Dropout& dropout);

}  // namespace stmoe
