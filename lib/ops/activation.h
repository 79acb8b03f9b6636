// SPDX-License-Identifier: Apache-2.0
// The feed-forward non-linearities: ReLU (T5 1.0, Switch) and GEGLU (T5 1.1, ST-MoE; Shazeer 2020).
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct ReluKernels {
  static constexpr const char* kOp = "relu";
  void (*forward)(const Tensor& y, const Tensor& x);
  void (*backward)(const Tensor& dx, const Tensor& dy, const Tensor& y);
};

struct GegluKernels {
  static constexpr const char* kOp = "geglu";
  void (*forward)(const Tensor& y, const Tensor& gate, const Tensor& x);
  // dx may be dy.
  void (*backward)(const Tensor& dgate, const Tensor& dx, const Tensor& dy, const Tensor& gate,
                   const Tensor& x);
};

// max(x, 0); the gradient at 0 is 0. A NaN stays a NaN.
Var relu(const Var& x);
// gelu(gate) * x with gelu in the tanh form 0.5 a (1 + tanh(sqrt(2/pi)(a + 0.044715 a^3))); same
// shape and type.
Var geglu(const Var& gate, const Var& x);

}  // namespace stmoe
