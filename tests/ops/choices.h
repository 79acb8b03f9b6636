// SPDX-License-Identifier: Apache-2.0
// Choices of experts for op tests: K distinct experts per token, some missing.
#pragma once

#include <vector>

#include "lib/base/random.h"
#include "lib/ops/dispatch_plan.h"
#include "lib/tensor/tensor.h"

namespace stmoe::test {

// i32 [tokens, k]; about one entry in `missing` is -1 (0: none).
inline Tensor draw_choices(int64_t tokens, int64_t k, int64_t experts, uint64_t missing,
                           uint64_t seed = 1) {
  RandomStream stream(RandomKey{seed}.fold("choices"));
  std::vector<int32_t> choices;
  for (int64_t n = 0; n < tokens; ++n) {
    const uint64_t first = stream.below(static_cast<uint64_t>(experts));
    for (int64_t i = 0; i < k; ++i) {
      const bool is_missing = missing > 0 && stream.below(missing) == 0;
      const auto expert = (first + static_cast<uint64_t>(i)) % static_cast<uint64_t>(experts);
      choices.push_back(is_missing ? -1 : static_cast<int32_t>(expert));
    }
  }
  return Tensor::from<int32_t>({tokens, k}, choices);
}

inline std::vector<int32_t> ints(const Tensor& tensor) {
  const auto values = tensor.span<int32_t>();
  return {values.begin(), values.end()};
}

inline std::vector<int32_t> ints_on_host(const Tensor& tensor) {
  return ints(tensor.on(Device::cpu));
}

// A plan made on the CPU, for an op that runs elsewhere.
inline DispatchPlan on_device(DispatchPlan plan, Device device) {
  plan.row_NK = plan.row_NK.on(device);
  plan.entry_R = plan.entry_R.on(device);
  plan.first_row_E1 = plan.first_row_E1.on(device);
  return plan;
}

}  // namespace stmoe::test
