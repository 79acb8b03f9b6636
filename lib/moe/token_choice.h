// SPDX-License-Identifier: Apache-2.0
// What routers have in common where tokens choose their experts: the router's input and its noise,
// probabilities, the choice, combine weights, losses, statistics (docs/design/routing.md). A router
// of this family adds who gets the places. N tokens, D width, G groups, K choices, E experts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/moe/moe_config.h"

namespace stmoe {

// How tokens are scored: keys of every router of the family. Null keys are filled by what
// `moe.follows` names.
struct TokenScoreConfig {
  std::optional<std::string> policy;
  double temperature = 1.0, input_dropout = 0.1;
  std::optional<double> jitter;
  std::optional<bool> jitter_experts;
  std::optional<std::string> padding;
  std::string precision = "f32";

  void visit(auto& v) {
    v("policy", policy,
      "how a token chooses in training: argmax, the most probable; input_jitter, the same of an "
      "input multiplied by U(1 - jitter, 1 + jitter); input_dropout, the same of an input with "
      "dropout; sample, drawn from softmax(logits / temperature). Evaluation: argmax. null: "
      "input_jitter if jitter is more than 0, else argmax",
      one_of({"argmax", "input_jitter", "input_dropout", "sample"}));
    v("temperature", temperature, "with policy: sample", greater_than(0.0));
    v("input_dropout", input_dropout, "rate, with policy: input_dropout", between(0.0, 0.99));
    v("jitter", jitter,
      "in training the router's input is multiplied by U(1 - jitter, 1 + jitter); Switch paper, "
      "Mesh TensorFlow, Hugging Face: 0.01; null: as moe.follows says",
      at_least(0.0), less_than(1.0));
    v("jitter_experts", jitter_experts,
      "the experts' input gets the same noise, where it is f32 (Hugging Face); null: as "
      "moe.follows says");
    v("padding", padding,
      "routed: as any token (flaxformer as configured, Hugging Face); zeroed: logits 0, no place, "
      "not in f and P, in the losses' denominators (flaxformer's ignore_padding_tokens); skipped: "
      "no place, losses as in Mesh TensorFlow; null: as moe.follows says",
      one_of({"routed", "zeroed", "skipped"}));
    v("precision", precision,
      "bf16: the router's input, kernel, logits and probabilities are rounded to bf16, for "
      "comparison (Switch, table 2)",
      one_of({"f32", "bf16"}));
  }
  // `k` experts a token.
  void resolve(const MoeConfig& moe, int64_t k);
  void validate_in(const RouterUse& use, Problems& problems) const;
};

// Tokens that choose k experts: top_k and its relatives.
struct TokenChoiceConfig : TokenScoreConfig {
  int64_t k = 1;
  std::optional<bool> normalize;
  std::optional<std::string> later_choices;
  std::vector<double> later_threshold = {0.2};
  std::optional<std::string> balance;

  void visit(auto& v) {
    v("k", k, "experts that each token is sent to; Switch: 1", at_least(1));
    v("normalize", normalize,
      "weights are divided by the sum of the token's k (Mesh TensorFlow, ST-MoE's text); false: p "
      "as it is (flaxformer); null: as moe.follows says");
    v("later_choices", later_choices,
      "which choices after the first are used: all; none; threshold: those whose share g of the "
      "token's k exceeds later_threshold; random: with probability min(1, g / later_threshold), "
      "also in evaluation; null: as moe.follows says",
      one_of({"all", "none", "threshold", "random"}));
    v("later_threshold", later_threshold,
      "of later_choices, one number or one for each choice from the second on", at_least(0.0),
      or_one_value());
    v("balance", balance,
      "choices that the load-balance loss counts, before dropping: all (flaxformer); first (Mesh "
      "TensorFlow, ST-MoE); kept_first: the first, after dropping, a dropped token counting as "
      "expert 0 (Hugging Face); null: as moe.follows says",
      one_of({"all", "first", "kept_first"}));
    TokenScoreConfig::visit(v);
  }
  void resolve(const MoeConfig& moe);
  void validate_in(const RouterUse& use, Problems& problems) const;
  // At most: random and threshold use fewer.
  double experts_per_token(const MoeConfig&) const {
    return later_choices == "none" ? 1.0 : static_cast<double>(k);
  }
};

// Probabilities, of f32 (f64 for f64), also when they were rounded to bf16.
struct TokenScores {
  Var logits_NE, p_NE, lse_N;
  Tensor preference_NE;  // by which tokens choose: p, or with policy sample logits and noise
  Var expert_input_ND;   // see Routing
};

// The most probable (or drawn) experts of each token, i32 [N, K].
struct Choices {
  Tensor expert_NK;   // -1: a token that does not choose
  Tensor counted_NK;  // what f of the balance loss counts: with skipped padding, all tokens'
};

class TokenScorer {
 public:
  // Makes `kernel` [D, E] under `scope`.
  TokenScorer(const TokenScoreConfig& config, const RouterShape& shape,
              const ParameterScope& scope);
  TokenScores score(const Var& x_ND, const RouterContext& context) const;
  Choices choose(const TokenScores& scores, int64_t k, const RouterContext& context) const;
  // Tokens that choose: undefined where padding is routed.
  Tensor choosing_N(const RouterContext& context) const;

  const TokenScoreConfig& config() const { return config_; }
  int64_t num_experts() const { return num_experts_; }

 private:
  Var input(const Var& x_ND, const RouterContext& context) const;

  TokenScoreConfig config_;
  int64_t num_experts_;
  Var kernel_DE_;
};

// Which choices the losses see, and how they count.
struct BalanceRule {
  std::string balance = "all";  // TokenChoiceConfig::balance
  bool wants_parts = false;     // RouterShape::wants_balance_parts
  bool is_switch = true;        // with skipped padding: the loss of Mesh TensorFlow's switch gating
  double factor = 1.0;
};
// Fills losses and the tally (its counts unless they are there) of a routing whose choices, slots
// and weights are there.
void finish_routing(Routing& routing, const TokenScorer& scorer, const TokenScores& scores,
                    const Tensor& counted_NK, const BalanceRule& rule,
                    const RouterContext& context);

// Scores, choices and weights of one batch: what a router of k choices gives places to.
struct TokenChoices {
  TokenScores scores;
  Tensor counted_NK;  // see Choices
  Tensor expert_NK;   // i32, as used; -1: no choice
  Tensor gate_NK;     // p of the choices
  Var weight_NK;
  // p of each token's first choice, 0 where a token does not choose.
  Tensor first_gate_N() const { return gate_NK.slice(1, 0, 1).contiguous(); }
};

// Switch: one choice with weight p, the first choice balanced.
TokenChoiceConfig one_choice(const TokenScoreConfig& scores);

class TokenChooser {
 public:
  TokenChooser(const TokenChoiceConfig& config, const RouterShape& shape,
               const ParameterScope& scope);
  TokenChoices choose(const Var& x_ND, const RouterContext& context) const;
  // Places in the order of the tokens, or of order_N (assign_slots.h).
  Routing place(const TokenChoices& choices, const RouterContext& context, int64_t capacity,
                const Tensor& order_N = Tensor()) const;
  // Places in each group by falling p of the first choices, equals in token order.
  Routing place_surest_first(const TokenChoices& choices, const RouterContext& context) const;

 private:
  TokenChoiceConfig config_;
  TokenScorer scorer_;
  bool wants_parts_;
};

}  // namespace stmoe
