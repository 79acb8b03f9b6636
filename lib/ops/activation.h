// SPDX-License-Identifier: Apache-2.0
// The feed-forward non-linearities: ReLU (T5 1.0, Switch) and GEGLU (T5 1.1, ST-MoE; Shazeer 2020).
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

// max(x, 0); the gradient at 0 is 0.
Var relu(const Var& x);
// gelu(gate) * x with gelu in the tanh form 0.5 a (1 + tanh(sqrt(2/pi)(a + 0.044715 a^3))); same shape and type.
Var geglu(const Var& gate, const Var& x);

}  // namespace stmoe
