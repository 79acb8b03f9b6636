// SPDX-License-Identifier: Apache-2.0
// The recipe's section `parallel`: how a model is spread over processes; data parallelism is what
// is left.
#pragma once

#include <cstdint>

#include "lib/config/config.h"

namespace stmoe {

struct ParallelConfig {
  int64_t expert = 1, tensor = 1;
  void visit(auto& v) {
    v("expert", expert, "ranks over which the experts of a layer are spread", at_least(1));
    v("tensor", tensor, "ranks over which each matrix is split", at_least(1));
  }
  void validate(Problems& problems) const {
    if (expert != 1)
      problems.add("expert", "is {}, expected 1: this version runs as one process", expert);
    if (tensor != 1)
      problems.add("tensor", "is {}, expected 1: this version runs as one process", tensor);
  }
};

}  // namespace stmoe
