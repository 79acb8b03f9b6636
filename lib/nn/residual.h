// SPDX-License-Identifier: Apache-2.0
// The residual stream between two sublayers: x + dropout(branch). The sum is left to the norm that
// follows, which makes it in the same pass.
#pragma once

#include "lib/nn/dropout.h"
#include "lib/ops/residual_norm.h"

namespace stmoe {

struct Residual {
  Var x_BLD;
  Var branch_BLD;   // what the last sublayer adds; undefined: nothing
  Dropout dropout;  // of the branch

  // The sum as one value.
  Var value() const {
    return branch_BLD.defined() ? residual_sum(x_BLD, branch_BLD, dropout) : x_BLD;
  }
};

}  // namespace stmoe
