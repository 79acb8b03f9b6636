// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/token_choice.h"

#include "lib/ops/add.h"
#include "lib/ops/assign_slots.h"
#include "lib/ops/descending_order.h"
#include "lib/ops/dropout.h"
#include "lib/ops/gather_columns.h"
#include "lib/ops/group_means.h"
#include "lib/ops/gumbel_scores.h"
#include "lib/ops/keep_choices.h"
#include "lib/ops/linear.h"
#include "lib/ops/load_balance_loss.h"
#include "lib/ops/normalize_rows.h"
#include "lib/ops/router_entropy.h"
#include "lib/ops/router_input.h"
#include "lib/ops/router_z_loss.h"
#include "lib/ops/routing_counts.h"
#include "lib/ops/softmax_with_lse.h"
#include "lib/ops/top_k.h"

namespace stmoe {
namespace {

Var rounded_to_bf16(const Var& x) { return cast(cast(x, DType::bf16), x.dtype()); }

// [N, 1]: the first choice of each token.
Tensor first_choice(const Tensor& chosen_NK) { return chosen_NK.slice(1, 0, 1).contiguous(); }

// Fills routing.load_balance_loss, and routing.balance where it is wanted. Where f is a plain count
// and nobody wants its factors, the loss is one op.
void add_balance_loss(Routing& routing, const Var& p_NE, const Tensor& counted_NK,
                      const BalanceRule& rule, const Tensor& mask_N, bool scales_by_padding) {
  const bool is_kept = rule.balance == "kept_first";
  const int64_t groups = routing.num_groups, experts = p_NE.dim(1);
  const Tensor choice_NK = is_kept                   ? first_choice(routing.expert_NK)
                           : rule.balance == "first" ? first_choice(counted_NK)
                                                     : counted_NK;
  if (!is_kept && !scales_by_padding && !rule.wants_parts) {
    const Var loss = load_balance_loss(p_NE, choice_NK, groups, mask_N);
    routing.load_balance_loss = rule.factor == 1.0 ? loss : scale(loss, rule.factor);
    return;
  }
  ShareOptions options;
  options.factor = rule.factor;
  if (is_kept) options.slot_NK = first_choice(routing.slot_NK);
  if (scales_by_padding) options.real_N = mask_N;
  const Tensor share_GE = choice_shares(choice_NK, groups, experts, p_NE.dtype(), options);
  const Var mean_GE = group_means(p_NE, groups, scales_by_padding ? Tensor() : mask_N);
  routing.load_balance_loss = scale(sum(multiply(mean_GE, Var(share_GE))),
                                    static_cast<double>(experts) / static_cast<double>(groups));
  if (rule.wants_parts) routing.balance = {share_GE, mean_GE};
}

Var z_loss(const Var& lse_N, const std::string& padding, const RouterContext& context) {
  if (padding != "skipped") return router_z_loss(lse_N);
  if (context.is_training) return router_z_loss(lse_N, context.mask_N);
  return Var(Tensor::zeros({1}, lse_N.dtype(), lse_N.device()));
}

KeepChoices::Policy keep_policy(const std::string& name) {
  if (name == "none") return KeepChoices::Policy::none;
  return name == "threshold" ? KeepChoices::Policy::threshold : KeepChoices::Policy::random;
}

}  // namespace

TokenScorer::TokenScorer(const TokenScoreConfig& config, const RouterShape& shape,
                         const ParameterScope& scope)
    : config_(config),
      num_experts_(shape.num_experts),
      kernel_DE_(scope.create("kernel", {shape.d_model, shape.num_experts}, shape.initializer)) {}

Tensor TokenScorer::choosing_N(const RouterContext& context) const {
  return *config_.padding == "routed" ? Tensor() : context.mask_N;
}

Var TokenScorer::input(const Var& x_ND, const RouterContext& context) const {
  RouterInputOptions options;
  if (context.is_training && *config_.policy == "input_jitter") options.jitter = *config_.jitter;
  options.key = context.key.fold("jitter");
  options.first_token = context.first_token;
  if (*config_.padding == "zeroed") options.mask_N = context.mask_N;
  const Var input_ND = router_input(x_ND, options);
  if (!context.is_training || *config_.policy != "input_dropout") return input_ND;
  return dropout(input_ND, {config_.input_dropout, context.key.fold("input_dropout"), -1,
                            context.first_token});
}

TokenScores TokenScorer::score(const Var& x_ND, const RouterContext& context) const {
  TokenScores scores;
  const Var input_ND = input(x_ND, context);
  const bool is_rounded = config_.precision == "bf16";
  if (*config_.jitter_experts && context.is_training && input_ND.dtype() == x_ND.dtype())
    scores.expert_input_ND = input_ND;
  // A product of bf16 with an f32 kernel rounds the kernel.
  scores.logits_NE = is_rounded
                         ? cast(linear(cast(input_ND, DType::bf16), kernel_DE_), input_ND.dtype())
                         : linear(input_ND, kernel_DE_);
  const SoftmaxWithLse softmax = softmax_with_lse(scores.logits_NE);
  scores.p_NE = is_rounded ? rounded_to_bf16(softmax.p_NE) : softmax.p_NE;
  scores.lse_N = softmax.lse_N;
  scores.preference_NE = scores.p_NE.value();
  if (context.is_training && *config_.policy == "sample")
    scores.preference_NE = gumbel_scores(scores.logits_NE.value(), config_.temperature,
                                         context.key.fold("sample"), context.first_token);
  return scores;
}

Choices TokenScorer::choose(const TokenScores& scores, int64_t k,
                            const RouterContext& context) const {
  const Tensor mask_N = choosing_N(context);
  const Tensor expert_NK = top_k(scores.preference_NE, k, mask_N);
  // Mesh TensorFlow's switch loss counts what padding would have chosen.
  const bool counts_all = *config_.padding == "skipped" && mask_N.defined();
  return {expert_NK, counts_all ? top_k(scores.preference_NE, k) : expert_NK};
}

void finish_routing(Routing& routing, const TokenScorer& scorer, const TokenScores& scores,
                    const Tensor& counted_NK, const BalanceRule& rule,
                    const RouterContext& context) {
  const std::string& padding = *scorer.config().padding;
  const Tensor mask_N = scorer.choosing_N(context);
  // Mesh TensorFlow's top-2 loss leaves padding out of the numerators instead.
  const bool scales_by_padding = padding == "skipped" && rule.is_switch && mask_N.defined();
  add_balance_loss(routing, scores.p_NE, counted_NK, rule, mask_N, scales_by_padding);
  routing.router_z_loss = z_loss(scores.lse_N, padding, context);
  routing.expert_input_ND = scores.expert_input_ND;
  if (!routing.tally.counts.defined())
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, scorer.num_experts());
  routing.tally.entropy =
      router_entropy(scores.p_NE.value(), scores.logits_NE.value(), scores.lse_N.value(), mask_N);
}

TokenChoiceConfig one_choice(const TokenScoreConfig& scores) {
  TokenChoiceConfig config;
  static_cast<TokenScoreConfig&>(config) = scores;
  config.k = 1;
  config.normalize = false;
  config.later_choices = "all";
  config.balance = "first";
  return config;
}

TokenChooser::TokenChooser(const TokenChoiceConfig& config, const RouterShape& shape,
                           const ParameterScope& scope)
    : config_(config), scorer_(config, shape, scope), wants_parts_(shape.wants_balance_parts) {
  if (config_.later_threshold.size() == 1)
    config_.later_threshold.resize(static_cast<size_t>(config_.k - 1),
                                   config_.later_threshold.front());
}

TokenChoices TokenChooser::choose(const Var& x_ND, const RouterContext& context) const {
  TokenChoices choices;
  choices.scores = scorer_.score(x_ND, context);
  const Choices chosen = scorer_.choose(choices.scores, config_.k, context);
  choices.expert_NK = chosen.expert_NK;
  choices.counted_NK = chosen.counted_NK;
  const Var gate_NK = gather_columns(choices.scores.p_NE, choices.expert_NK);
  choices.gate_NK = gate_NK.value();
  const bool thins = *config_.later_choices != "all" && config_.k > 1;
  const Var share_NK = *config_.normalize || thins ? normalize_rows(gate_NK) : gate_NK;
  choices.weight_NK = *config_.normalize ? share_NK : gate_NK;
  if (thins)
    choices.expert_NK = keep_choices(choices.expert_NK, share_NK.value(),
                                     {keep_policy(*config_.later_choices), config_.later_threshold,
                                      context.key.fold("later_choices"), context.first_token});
  return choices;
}

Routing TokenChooser::place(const TokenChoices& choices, const RouterContext& context,
                            int64_t capacity, const Tensor& order_N) const {
  Routing routing;
  routing.num_groups = context.num_groups;
  routing.capacity = capacity;
  routing.expert_NK = choices.expert_NK;
  routing.slot_NK = assign_slots(choices.expert_NK,
                                 {scorer_.num_experts(), context.num_groups, capacity, order_N});
  routing.weight_NK = choices.weight_NK;
  finish_routing(routing, scorer_, choices.scores, choices.counted_NK,
                 {*config_.balance, wants_parts_, config_.k == 1, 1.0}, context);
  return routing;
}

Routing TokenChooser::place_surest_first(const TokenChoices& choices,
                                         const RouterContext& context) const {
  const Tensor order_N = descending_order(choices.first_gate_N(), context.num_groups);
  return place(choices, context, context.capacity, order_N);
}

}  // namespace stmoe
