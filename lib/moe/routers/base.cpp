// SPDX-License-Identifier: Apache-2.0
// BASE layers (Lewis et al. 2021, "BASE layers: simplifying training of large, sparse models";
// fairseq/modules/base_layer.py): in training a balanced assignment of the tokens of a group to
// experts, each taking at most tokens / experts (rounded up), that maximises the sum of the scores
// x W (balanced_assignment.h; no gradient through it); in evaluation every token goes to its best
// expert, equals to the lower index. Weight sigmoid(score); no loss, no capacity factor, nothing is
// dropped. fairseq's layer returns alpha expert(x) + (1 - alpha) x with an expert that adds its
// input: the residual plus alpha times the feed-forward network, as here.
// Allowed in a decoder, as in fairseq: which expert a token gets in training hangs on the other
// tokens of its group, later ones too, but its weight does not, and in evaluation and generation
// nothing does.
#include "lib/moe/router_parts.h"
#include "lib/ops/assign_slots.h"
#include "lib/ops/balanced_assignment.h"
#include "lib/ops/gather_columns.h"
#include "lib/ops/linear.h"
#include "lib/ops/router_input.h"
#include "lib/ops/routing_counts.h"
#include "lib/ops/sigmoid.h"
#include "lib/ops/top_k.h"

namespace stmoe {
namespace {

class BaseRouter final : public Router {
 public:
  struct Config {
    std::string padding = "routed";

    void visit(auto& v) {
      v("padding", padding, "routed: as any token; skipped: has no expert and is not counted",
        one_of({"routed", "skipped"}));
    }
    void validate_in(const RouterUse& use, Problems& problems) const {
      refuse_router_z_loss(use, "its scores are no logits of a softmax", problems);
    }
    double experts_per_token(const MoeConfig&) const { return 1; }
  };

  BaseRouter(const Config& config, const RouterShape& shape, const ParameterScope& scope)
      : config_(config),
        num_experts_(shape.num_experts),
        kernel_DE_(scope.create("kernel", {shape.d_model, shape.num_experts}, shape.initializer)) {}

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const Tensor mask_N = config_.padding == "skipped" ? context.mask_N : Tensor();
    const Var scores_NE = linear(router_input(x_ND, {}), kernel_DE_);
    const int64_t tokens = x_ND.dim(0) / context.num_groups;

    Routing routing;
    routing.num_groups = context.num_groups;
    routing.capacity = context.is_training ? (tokens + num_experts_ - 1) / num_experts_ : tokens;
    routing.expert_NK =
        context.is_training
            ? balanced_assignment(scores_NE.value(), context.num_groups, mask_N).expert_N1
            : top_k(scores_NE.value(), 1, mask_N);
    routing.slot_NK =
        assign_slots(routing.expert_NK, {num_experts_, context.num_groups, routing.capacity, {}});
    routing.weight_NK = sigmoid(gather_columns(scores_NE, routing.expert_NK));
    routing.load_balance_loss = routing.router_z_loss = no_loss(scores_NE);
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, num_experts_);
    return routing;
  }

 private:
  Config config_;
  int64_t num_experts_;
  Var kernel_DE_;
};

STMOE_REGISTER(Router, "base", router_factory<BaseRouter>())

}  // namespace
}  // namespace stmoe
