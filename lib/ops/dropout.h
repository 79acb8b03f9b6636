// SPDX-License-Identifier: Apache-2.0
// Inverted dropout: y = x * mask / (1 - rate), mask ~ Bernoulli(1 - rate). The mask is a pure
// function of (key, global element index): it is drawn again in the backward pass, never stored.
//
// An element is kept when random_uniform(key, i) >= rate. i is its row-major index in x's shape
// without the broadcast dimension, counted from the first element of row 0 of the global batch.
#pragma once

#include "lib/autograd/var.h"
#include "lib/base/random.h"

namespace stmoe {

struct Dropout {
  double rate = 0;  // 0 <= rate < 1; 0 is the identity
  RandomKey key;
  // The dimension along which one mask is shared (flaxformer and mesh share along the sequence: 1
  // for [B, L, D]); -1: every element has its own.
  int broadcast_dim = -1;
  // Index of the first element's row (dimension 0) in the global batch, so that ranks draw
  // different masks.
  int64_t first_row = 0;
};

struct DropoutKernels {
  static constexpr const char* kOp = "dropout";
  // y may be x.
  void (*apply)(const Tensor& y, const Tensor& x, const Dropout& dropout);
};

// x of any shape, floating; y has its shape and type.
Var dropout(const Var& x, const Dropout& dropout);

}  // namespace stmoe
