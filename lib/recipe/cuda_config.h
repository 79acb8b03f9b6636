// SPDX-License-Identifier: Apache-2.0
// The recipe's section `cuda`: how a GPU does what the other sections say. Nothing here changes a
// result beyond rounding; the CPU ignores it.
#pragma once

#include <string>

#include "lib/config/config.h"

namespace stmoe {

struct CudaConfig {
  std::string attention = "auto";
  std::string graphs = "auto";
  void visit(auto& v) {
    v("attention", attention,
      "attention weights in memory (materialised) or on chip (fused, bf16 only); auto: fused where "
      "sizes allow",
      one_of({"auto", "materialised", "fused"}));
    v("graphs", graphs,
      "auto: a step is recorded and started as one CUDA graph, where it reads nothing back; off: "
      "each kernel is started on its own",
      one_of({"auto", "off"}));
  }
};

}  // namespace stmoe
