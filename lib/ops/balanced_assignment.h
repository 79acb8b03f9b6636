// SPDX-License-Identifier: Apache-2.0
// One expert for each token so that no expert of a group has more than ceil(tokens / experts), and
// the sum of the scores is the largest possible (BASE layers, Lewis et al. 2021, equation 1).
// Exact, where fairseq's auction (fairseq/clib/libbase/balanced_assignment.cpp) comes close:
// successive shortest paths with prices, in f64, deterministic.
//   start: every token at its best expert, prices 0
//   while an expert has too many: move one token along the cheapest chain of experts to one with
//   room
// Dijkstra over the experts finds the chain; the edge from e to f is the token of e that loses
// least by moving to f, the first of a heap. There are as many chains as tokens too many at the
// start, fewer than N. Cost: O(N E log N) for the heaps, and for each chain O(V E log N) with the V
// experts that it visits, E at most and mostly far fewer; memory O(N E).
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct BalancedAssignment {
  Tensor expert_N1;  // i32 [N, 1]; -1: a token that is left out
  int64_t num_chains = 0;
};

struct BalancedAssignmentKernels {
  static constexpr const char* kOp = "balanced_assignment";
  // Returns the number of chains.
  int64_t (*assign)(const Tensor& expert_N1, const Tensor& scores_NE, int64_t num_groups,
                    const Tensor& mask_N);
};

// scores_NE f32 or f64, group-major, num_groups divides N. Tokens where mask_N (i32, may be
// undefined) is 0 are left out, also of the count. A score that is not finite counts as the lowest
// finite one of its group. No gradient. For scores on a device the host waits, computes, and copies
// the result there: such a step cannot be a CUDA graph.
BalancedAssignment balanced_assignment(const Tensor& scores_NE, int64_t num_groups,
                                       const Tensor& mask_N = Tensor());

}  // namespace stmoe
