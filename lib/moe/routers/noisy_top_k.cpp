// SPDX-License-Identifier: Apache-2.0
// Noisy top-k gating (Shazeer et al. 2017, "Outrageously large neural networks", section 2.1 and
// appendix A; tensor2tensor's noisy_top_k_gating, tensor2tensor/utils/expert_utils.py):
//   H = x W + N(0,1) s,  s = softplus(x W_noise) + noise_epsilon      in training, else H = x W
//   choices: the k largest H, equals to the lower index; weights: softmax over the kept
//   load_balance_loss = importance CV^2(sum over tokens of the gates) + load CV^2(smooth load)
// over all tokens of the batch, whatever the groups (cv_squared.h, top_k_load.h). In evaluation,
// and where every expert is kept, the load is the number of tokens, without gradient. Random number
// of (n, e): random_normal at (first_token + n) E + e of the layer's key folded with "noise".
// Nothing is dropped, unless the layer's capacity is asked for (choice-major slots).
#include <algorithm>

#include "lib/moe/router_parts.h"
#include "lib/ops/add.h"
#include "lib/ops/assign_slots.h"
#include "lib/ops/choice_sums.h"
#include "lib/ops/cv_squared.h"
#include "lib/ops/gather_columns.h"
#include "lib/ops/linear.h"
#include "lib/ops/normal_noise.h"
#include "lib/ops/router_entropy.h"
#include "lib/ops/router_input.h"
#include "lib/ops/routing_counts.h"
#include "lib/ops/softmax_with_lse.h"
#include "lib/ops/softplus.h"
#include "lib/ops/top_k.h"
#include "lib/ops/top_k_load.h"

namespace stmoe {
namespace {

class NoisyTopKRouter final : public Router {
 public:
  struct Config {
    int64_t k = 2;
    double importance = 1.0, load = 1.0, noise_epsilon = 0.01;
    bool starts_at_zero = true;
    std::string capacity = "none", padding = "routed";

    void visit(auto& v) {
      v("k", k, "experts that each token is sent to", at_least(1));
      v("importance", importance, "weight of the importance loss in load_balance_loss",
        at_least(0.0));
      v("load", load, "weight of the load loss in load_balance_loss", at_least(0.0));
      v("noise_epsilon", noise_epsilon,
        "least deviation of the noise (tensor2tensor: 0.01; the paper: 0)", at_least(0.0));
      v("starts_at_zero", starts_at_zero,
        "both kernels start at 0, as in the paper: about equal load at first; false: as other "
        "routers start");
      v("capacity", capacity,
        "none: an expert takes all its tokens (the paper); factor: as many as the layer's capacity "
        "says, choice by choice in token order",
        one_of({"none", "factor"}));
      v("padding", padding, "routed: as any token; skipped: takes no place and counts in no loss",
        one_of({"routed", "skipped"}));
    }
    void validate_in(const RouterUse& use, Problems& problems) const {
      if (k > use.moe.num_experts)
        problems.add(use.key("k"), "is {}, but there are {} experts (num_experts)", k,
                     use.moe.num_experts);
      refuse_router_z_loss(use, "its softmax is over the kept experts only", problems);
    }
    double experts_per_token(const MoeConfig&) const { return static_cast<double>(k); }
  };

  NoisyTopKRouter(const Config& config, const RouterShape& shape, const ParameterScope& scope)
      : config_(config), num_experts_(shape.num_experts) {
    const Initializer start = config.starts_at_zero ? Initializer::constant(0) : shape.initializer;
    kernel_DE_ = scope.create("kernel", {shape.d_model, shape.num_experts}, start);
    noise_DE_ = (scope / "noise").create("kernel", {shape.d_model, shape.num_experts}, start);
  }

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const Tensor mask_N = config_.padding == "skipped" ? context.mask_N : Tensor();
    const NoisyLogits logits = noisy_logits(router_input(x_ND, {}), context);
    const int64_t num_largest = std::min(config_.k + 1, num_experts_);
    const Tensor largest = top_k(logits.noisy_NE.value(), num_largest, mask_N);

    Routing routing;
    routing.num_groups = context.num_groups;
    routing.capacity =
        config_.capacity == "none" ? x_ND.dim(0) / context.num_groups : context.capacity;
    routing.expert_NK = largest.slice(1, 0, config_.k).contiguous();
    routing.slot_NK =
        assign_slots(routing.expert_NK, {num_experts_, context.num_groups, routing.capacity, {}});
    const Var kept_NK = gather_columns(logits.noisy_NE, routing.expert_NK);
    const auto [p_NK, lse_N] = softmax_with_lse(kept_NK);
    routing.weight_NK = p_NK;
    routing.load_balance_loss = balance_loss(logits, largest, routing);
    routing.router_z_loss = no_loss(p_NK);
    routing.tally = {routing_counts(routing.expert_NK, routing.slot_NK, num_experts_),
                     router_entropy(p_NK.value(), kept_NK.value(), lse_N.value(), mask_N)};
    return routing;
  }

 private:
  // Without noise in evaluation, where there is no deviation.
  NoisyLogits noisy_logits(const Var& x_ND, const RouterContext& context) const {
    NoisyLogits logits;
    logits.clean_NE = logits.noisy_NE = linear(x_ND, kernel_DE_);
    if (!context.is_training) return logits;
    logits.deviation_NE = softplus(linear(x_ND, noise_DE_), config_.noise_epsilon);
    const Var noise_NE(
        normal_noise(logits.clean_NE.shape(), logits.clean_NE.dtype(), context.key.fold("noise"),
                     static_cast<uint64_t>(context.first_token * num_experts_), x_ND.device()));
    logits.noisy_NE = add(logits.clean_NE, multiply(logits.deviation_NE, noise_NE));
    return logits;
  }

  Var balance_loss(const NoisyLogits& logits, const Tensor& largest, const Routing& routing) const {
    const Var importance_E = choice_sums(routing.weight_NK, routing.expert_NK, num_experts_);
    const bool is_smooth = logits.deviation_NE.defined() && config_.k < num_experts_;
    const Var ones(
        Tensor::full(routing.expert_NK.shape(), importance_E.dtype(), 1.0, importance_E.device()));
    const Var load_E = is_smooth ? top_k_load(logits, largest)
                                 : choice_sums(ones, routing.expert_NK, num_experts_);
    return weighted_sum({cv_squared(importance_E), cv_squared(load_E)},
                        {config_.importance, config_.load});
  }

  Config config_;
  int64_t num_experts_;
  Var kernel_DE_, noise_DE_;
};

STMOE_REGISTER(Router, "noisy_top_k", router_factory<NoisyTopKRouter>())

}  // namespace
}  // namespace stmoe
