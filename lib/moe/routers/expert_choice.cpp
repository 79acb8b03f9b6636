// SPDX-License-Identifier: Apache-2.0
// Experts choose their tokens. Every expert takes as many tokens of a group as the capacity factor
// says: balanced without a loss, while a token gets no, one or several experts.
//   over: experts  Zhou et al. 2022, section 3.2, as flaxformer's ExpertsChooseMaskedRouter
//   (flaxformer/architectures/moe/routing.py): p = softmax(logits[t]) over the experts; expert e
//   takes the C tokens with the largest p[.,e], equals by the lower token; weight p; no balance
//   loss; z-loss: mean lse^2.
//   over: tokens   Mesh TensorFlow's _expert_selection_gating (mesh_tensorflow/transformer/moe.py):
//   p = softmax of logits[.,e] over the tokens of the group; weight p divided by the number of
//   experts that took the token; expert_selection_loss.h as balance loss; no z-loss.
// A row of Routing has an entry for every expert (K = E), -1 where the expert did not take it. A
// token's experts hang on the other tokens of its group: not for decoders. Generation chooses with
// the factor's capacity as well: there is no "nothing is dropped" here.
#include <algorithm>

#include "lib/moe/router_parts.h"
#include "lib/ops/add.h"
#include "lib/ops/choose_all.h"
#include "lib/ops/choose_tokens.h"
#include "lib/ops/expert_selection_loss.h"
#include "lib/ops/linear.h"
#include "lib/ops/router_input.h"
#include "lib/ops/routing_counts.h"
#include "lib/ops/softmax_over_tokens.h"
#include "lib/ops/softmax_with_lse.h"

namespace stmoe {
namespace {

class ExpertChoiceRouter final : public Router {
 public:
  struct Config {
    std::optional<std::string> over, padding;
    std::optional<double> jitter;
    bool allow_in_decoder = false;

    void visit(auto& v) {
      v("over", over,
        "what an expert's probabilities are a softmax over: experts (Zhou et al., flaxformer) or "
        "tokens (Mesh TensorFlow, with its weights and its loss); null: as follows says",
        one_of({"experts", "tokens"}));
      v("jitter", jitter,
        "in training the router's input is multiplied by U(1 - jitter, 1 + jitter); null: as "
        "follows says (mesh: 0.01, else 0)",
        at_least(0.0), less_than(1.0));
      v("padding", padding,
        "routed: as any token; zeroed: probability 0, so that it is taken last and gives 0; "
        "skipped: never taken; null: routed over experts (flaxformer), zeroed over tokens (Mesh "
        "TensorFlow)",
        one_of({"routed", "zeroed", "skipped"}));
      v("allow_in_decoder", allow_in_decoder,
        "true: also in a decoder, where a token is then routed by what follows it");
    }
    void resolve(const MoeConfig& moe) {
      const bool is_mesh = moe.follows == "mesh";
      if (!over) over = is_mesh ? "tokens" : "experts";
      if (!padding) padding = *over == "tokens" ? "zeroed" : "routed";
      if (!jitter) jitter = is_mesh ? 0.01 : 0.0;
    }
    void validate_in(const RouterUse& use, Problems& problems) const {
      refuse_in_decoder(use, allow_in_decoder,
                        "its experts choose among all tokens of a group, later ones included",
                        problems);
      if (*over == "tokens")
        refuse_router_z_loss(use, "Mesh TensorFlow's expert selection (over: tokens) defines none",
                             problems);
    }
    double experts_per_token(const MoeConfig& moe) const {
      return std::min(moe.train_capacity_factor, static_cast<double>(moe.num_experts));
    }
  };

  ExpertChoiceRouter(const Config& config, const RouterShape& shape, const ParameterScope& scope)
      : config_(config),
        num_experts_(shape.num_experts),
        kernel_DE_(scope.create("kernel", {shape.d_model, shape.num_experts}, shape.initializer)) {}

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const Tensor mask_N = *config_.padding == "routed" ? Tensor() : context.mask_N;
    RouterInputOptions input;
    input.jitter = context.is_training ? *config_.jitter : 0.0;
    input.key = context.key.fold("jitter");
    input.first_token = context.first_token;
    input.mask_N = mask_N;
    const Var logits_NE = linear(router_input(x_ND, input), kernel_DE_);
    return *config_.over == "experts" ? choose_over_experts(logits_NE, mask_N, context)
                                      : choose_over_tokens(logits_NE, mask_N, context);
  }

 private:
  // Choices, slots and counts; the rest is filled by the caller.
  Routing take(const Tensor& p_NE, const RouterContext& context) const {
    const Tensor mask_N = *config_.padding == "skipped" ? context.mask_N : Tensor();
    const ChosenTokens chosen =
        choose_tokens(p_NE, context.num_groups, context.factor_capacity, mask_N);
    Routing routing;
    routing.num_groups = context.num_groups;
    routing.capacity = context.factor_capacity;
    routing.expert_NK = chosen.expert_NE;
    routing.slot_NK = chosen.slot_NE;
    // Tokens that no expert took have not chosen one either.
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, num_experts_,
                                          {/*all=*/true, context.mask_N});
    return routing;
  }

  Routing choose_over_experts(const Var& logits_NE, const Tensor& mask_N,
                              const RouterContext& context) const {
    const SoftmaxWithLse softmax = softmax_with_lse(logits_NE);
    RouterInputOptions masked;  // padding's p becomes 0
    masked.mask_N = mask_N;
    const Var weight_NE = router_input(softmax.p_NE, masked);
    Routing routing = take(weight_NE.value(), context);
    routing.weight_NK = weight_NE;
    finish_without_balance(routing, logits_NE, softmax, mask_N);
    return routing;
  }

  Routing choose_over_tokens(const Var& logits_NE, const Tensor& mask_N,
                             const RouterContext& context) const {
    const Var p_NE = softmax_over_tokens(logits_NE, context.num_groups, mask_N);
    Routing routing = take(p_NE.value(), context);
    routing.weight_NK = multiply(p_NE, Var(inverse_counts(routing.expert_NK, p_NE.dtype())));
    routing.load_balance_loss = expert_selection_loss(p_NE, context.num_groups, mask_N);
    routing.router_z_loss = no_loss(p_NE);
    return routing;
  }

  Config config_;
  int64_t num_experts_;
  Var kernel_DE_;
};

STMOE_REGISTER(Router, "expert_choice", router_factory<ExpertChoiceRouter>())

}  // namespace
}  // namespace stmoe
