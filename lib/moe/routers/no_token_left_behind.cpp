// SPDX-License-Identifier: Apache-2.0
// No-Token-Left-Behind (Fedus et al. 2021, appendix B; Mesh TensorFlow's _ntlb_gating,
// transformer/moe.py): a token that its most probable expert has no place for tries the next one,
// all tokens in one round before any in the next. One expert a token, weight p of the expert that
// took it. The load-balance loss is the mean over the rounds of E mean_g sum_e f P, f counting the
// choices of that round before anything is dropped.
#include <algorithm>

#include "lib/moe/token_choice.h"
#include "lib/ops/assign_in_rounds.h"
#include "lib/ops/gather_columns.h"
#include "lib/ops/routing_counts.h"

namespace stmoe {
namespace {

class NoTokenLeftBehindRouter final : public Router {
 public:
  struct Config : TokenScoreConfig {
    int64_t rounds = 4;

    void visit(auto& v) {
      v("rounds", rounds, "experts that a token tries at most, with fewer experts all of them",
        at_least(1));
      TokenScoreConfig::visit(v);
    }
    void resolve(const MoeConfig& moe) { TokenScoreConfig::resolve(moe, 1); }
    double experts_per_token(const MoeConfig&) const { return 1; }
  };
  static constexpr bool kGivesBalanceParts = true;

  NoTokenLeftBehindRouter(const Config& config, const RouterShape& shape,
                          const ParameterScope& scope)
      : rounds_(std::min(config.rounds, shape.num_experts)),
        scorer_(config, shape, scope),
        rule_{"all", shape.wants_balance_parts, true, 1.0 / static_cast<double>(rounds_)} {}

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    const TokenScores scores = scorer_.score(x_ND, context);
    const Choices choices = scorer_.choose(scores, rounds_, context);
    const RoundPlaces places = assign_in_rounds(choices.expert_NK, scorer_.num_experts(),
                                                context.num_groups, context.capacity);
    Routing routing;
    routing.num_groups = context.num_groups;
    routing.capacity = context.capacity;
    routing.expert_NK = places.expert_N1;
    routing.slot_NK = places.slot_N1;
    routing.weight_NK = gather_columns(scores.p_NE, places.expert_N1);
    // The load that the experts were wanted for, not the one that the rounds levelled.
    routing.tally.counts = routing_counts(choices.expert_NK.slice(1, 0, 1).contiguous(),
                                          places.slot_N1, scorer_.num_experts());
    finish_routing(routing, scorer_, scores, choices.counted_NK, rule_, context);
    return routing;
  }

 private:
  int64_t rounds_;
  TokenScorer scorer_;
  BalanceRule rule_;
};

STMOE_REGISTER(Router, "no_token_left_behind", router_factory<NoTokenLeftBehindRouter>())

}  // namespace
}  // namespace stmoe
