// SPDX-License-Identifier: Apache-2.0
// What a routing did, in numbers that stay on the device until somebody reads them: how many
// choices each expert got, how many found no place. Integers, kept as f64 so that they can be read
// with other numbers of a step.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

// Behind the E experts' counts: choices that name an expert; those of them without a place; tokens
// that count; those of them without any place.
enum class RoutingCount : int { pairs, dropped, tokens, left_behind };
inline constexpr int kNumRoutingCounts = 4;

// Which tokens count.
struct RoutedTokens {
  // false: those that chose an expert; true: all, for routers where experts choose,
  bool all = false;
  Tensor real_N = {};  // but for those where this (i32, may be undefined) is 0
};

struct RoutingCountsKernels {
  static constexpr const char* kOp = "routing_counts";
  void (*count)(const Tensor& counts, const Tensor& expert_NK, const Tensor& slot_NK,
                const RoutedTokens& tokens);
};

// expert_NK i32 [N, K], -1: none; slot_NK i32 [N, K], -1: no place. Returns f64 [E + 4].
Tensor routing_counts(const Tensor& expert_NK, const Tensor& slot_NK, int64_t num_experts,
                      const RoutedTokens& tokens = {});

}  // namespace stmoe
