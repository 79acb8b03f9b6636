// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/routing_statistics.h"

#include <algorithm>

namespace stmoe {
namespace {

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

}  // namespace

RoutingStatistics routing_statistics(const Tensor& expert_NK, const Tensor& slot_NK,
                                     int64_t num_experts) {
  const auto expert = expert_NK.span<int32_t>(), slot = slot_NK.span<int32_t>();
  const int64_t tokens = expert_NK.dim(0), k = expert_NK.dim(1);
  std::vector<int64_t> count_E(static_cast<size_t>(num_experts));
  int64_t pairs = 0, dropped = 0, routed_tokens = 0, left_behind = 0;
  for (int64_t n = 0; n < tokens; ++n) {
    int64_t chosen = 0, kept = 0;
    for (size_t i = static_cast<size_t>(n * k); i < static_cast<size_t>((n + 1) * k); ++i) {
      if (expert[i] < 0) continue;
      ++count_E[static_cast<size_t>(expert[i])];
      ++chosen;
      kept += slot[i] >= 0;
    }
    pairs += chosen;
    dropped += chosen - kept;
    routed_tokens += chosen > 0;
    left_behind += chosen > 0 && kept == 0;
  }
  RoutingStatistics result;
  result.dropped_fraction = ratio(dropped, pairs);
  result.left_behind_fraction = ratio(left_behind, routed_tokens);
  for (int64_t count : count_E) result.load_E.push_back(ratio(count, pairs));
  result.load_max_over_mean =
      *std::ranges::max_element(result.load_E) * static_cast<double>(num_experts);
  return result;
}

}  // namespace stmoe
