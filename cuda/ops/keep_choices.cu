// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/runtime/launch.h"
#include "lib/ops/keep_choices.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

struct ChoiceRule {
  KeepChoices::Policy policy;
  RandomKey key;
  int64_t first_token, k, choice;
};

template <class T>
STMOE_DEVICE bool is_kept(T gate, T threshold, int64_t token, const ChoiceRule& rule) {
  if (rule.choice == 0) return true;
  if (rule.policy == KeepChoices::Policy::threshold) return gate > threshold;
  const int64_t index = (rule.first_token + token) * rule.k + rule.choice;
  return rule.policy == KeepChoices::Policy::random &&
         static_cast<T>(random_uniform(rule.key, static_cast<uint64_t>(index))) < gate / threshold;
}

// A thread for each token, one of its choices: reads 8 bytes, writes 4.
template <class T>
STMOE_KERNEL keep_one_choice(int32_t* kept_NK, const int32_t* expert_NK, const T* gate_NK,
                             int64_t tokens, T threshold, ChoiceRule rule) {
  const int64_t n = block_index() * kThreads + thread_index();
  if (n < tokens) {
    const int64_t i = n * rule.k + rule.choice;
    kept_NK[i] = is_kept(gate_NK[i], threshold, n, rule) ? expert_NK[i] : -1;
  }
}

// A launch for each choice: its threshold is an argument, whatever their number.
template <class T>
void keep_typed(const Tensor& kept_NK, const Tensor& expert_NK, const Tensor& gate_NK,
                const KeepChoices& options) {
  const int64_t tokens = expert_NK.dim(0), k = expert_NK.dim(1);
  for (int64_t choice = 0; choice < k; ++choice) {
    double threshold = choice == 0 ? 0 : options.threshold[static_cast<size_t>(choice - 1)];
    if (options.policy == KeepChoices::Policy::random) threshold = std::max(threshold, 1e-9);
    launch(keep_one_choice<T>, blocks_for(tokens, kThreads), kThreads, 0, kept_NK.data<int32_t>(),
           expert_NK.data<int32_t>(), gate_NK.data<T>(), tokens, threshold,
           ChoiceRule{options.policy, options.key, options.first_token, k, choice});
  }
}

void keep(const Tensor& kept_NK, const Tensor& expert_NK, const Tensor& gate_NK,
          const KeepChoices& options) {
  if (gate_NK.dtype() == DType::f64)
    keep_typed<double>(kept_NK, expert_NK, gate_NK, options);
  else
    keep_typed<float>(kept_NK, expert_NK, gate_NK, options);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(KeepChoicesKernels, STMOE_GPU, {gpu::keep})

}  // namespace stmoe
