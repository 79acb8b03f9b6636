// SPDX-License-Identifier: Apache-2.0
// Experts by a table: expert[n] = table[id[n] mod period], the hash of Roller et al. 2021. Integers
// only.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct LookUpKernels {
  static constexpr const char* kOp = "look_up";
  void (*look_up)(const Tensor& expert_N1, const Tensor& table, const Tensor& id_N, int64_t period,
                  const Tensor& mask_N);
};

// table i32, with an entry for every id mod period; id_N i32, not negative. Tokens where mask_N
// (i32, may be undefined) is 0 get -1. Returns i32 [N, 1].
Tensor look_up(const Tensor& table, const Tensor& id_N, int64_t period,
               const Tensor& mask_N = Tensor());

}  // namespace stmoe
