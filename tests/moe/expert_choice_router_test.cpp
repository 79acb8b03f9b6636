// SPDX-License-Identifier: Apache-2.0
// The expert_choice router against google/flaxformer's router and Mesh TensorFlow's rule
// (scripts/golden/expert_choice.py), and by hand.
#include <cmath>

#include <catch2/catch.hpp>

#include "tests/moe/golden_json.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

RouterContext context_of(int64_t groups, int64_t capacity) {
  RouterContext context;
  context.num_groups = groups;
  context.factor_capacity = capacity;
  context.capacity = 1 << 20;  // generation's: not looked at
  return context;
}

Routing route(const std::string& router_keys, const Tensor& logits_NE,
              const RouterContext& context) {
  const LogitsRouter router(
      moe_config(format("{{num_experts: {}, router: {{kind: expert_choice{}}}}}", logits_NE.dim(1),
                        router_keys)),
      logits_NE.dtype());
  return router.route(Var(logits_NE), context);
}

// Every expert's places are used once, in the order of the tokens, `capacity` of each group.
void require_slots(const Routing& routing, int64_t tokens_per_group) {
  const Ints expert = ints(routing.expert_NK), slot = ints(routing.slot_NK);
  const int64_t experts = routing.expert_NK.dim(1);
  for (int64_t e = 0; e < experts; ++e) {
    std::vector<int64_t> next(static_cast<size_t>(routing.num_groups));
    for (int64_t n = 0; n < routing.expert_NK.dim(0); ++n) {
      const auto i = static_cast<size_t>(n * experts + e);
      REQUIRE((expert[i] == e || expert[i] == -1));
      REQUIRE((expert[i] < 0) == (slot[i] < 0));
      if (slot[i] < 0) continue;
      const int64_t group = n / tokens_per_group;
      REQUIRE(slot[i] == group * routing.capacity + next[static_cast<size_t>(group)]++);
    }
    for (int64_t used : next) REQUIRE(used <= routing.capacity);
  }
}

void check_case(const nlohmann::json& golden, DType dtype) {
  CAPTURE(golden["name"].get<std::string>(), golden["over"].get<std::string>(), name_of(dtype));
  const int64_t experts = golden["num_experts"], tokens = golden["tokens_per_group"];
  RouterContext context = context_of(golden["num_groups"], golden["capacity"]);
  const auto mask = flat_values<int32_t>(golden["mask"]);
  const bool has_padding = std::count(mask.begin(), mask.end(), 0) > 0;
  context.mask_N = Tensor::from<int32_t>({static_cast<int64_t>(mask.size())}, mask);
  const Routing routing = route(format(", over: {}, padding: {}", golden["over"].get<std::string>(),
                                       has_padding ? "zeroed" : "routed"),
                                golden_matrix(golden["logits"], experts, dtype), context);
  REQUIRE(ints(routing.expert_NK) == flat_values<int32_t>(golden["expert"]));
  require_slots(routing, tokens);
  REQUIRE(routing.weight_NK.dtype() == dtype);
  auto weights = values_of(routing.weight_NK.value());
  const Ints slot = ints(routing.slot_NK);
  for (size_t i = 0; i < weights.size(); ++i)
    if (slot[i] < 0) weights[i] = 0;      // entries without a row are not used
  const Tolerance tolerance{3e-6, 3e-6};  // flaxformer's numbers are f32
  require_close(Tensor::from<double>(routing.weight_NK.shape(), weights),
                flat_values<double>(golden["weight"]), tolerance);
  require_close(routing.load_balance_loss.value().item(), golden["load_balance_loss"].get<double>(),
                tolerance);
  require_close(routing.router_z_loss.value().item(), golden["router_z_loss"].get<double>(),
                tolerance);
  REQUIRE(statistics_of(routing.tally).dropped_fraction == 0);
}

TEST_CASE("expert_choice takes, weighs and loses as flaxformer and Mesh TensorFlow do",
          "[moe][router][golden]") {
  const auto golden = golden_json("expert_choice.json");
  REQUIRE(golden["cases"].size() == 18);
  for (const auto& one : golden["cases"])
    for (DType dtype : {DType::f64, DType::f32}) check_case(one, dtype);
}

TEST_CASE("expert_choice by hand: four tokens, two experts, equals to the lower token",
          "[moe][router]") {
  // p of expert 0: 0.5, 0.75, 0.5, 0.25.
  const double ln3 = std::log(3.0);
  const Tensor logits = Tensor::from<double>({4, 2}, {0, 0, ln3, 0, 1, 1, 0, ln3});
  const Routing two = route("", logits, context_of(1, 2));
  REQUIRE(ints(two.expert_NK) == Ints{0, 1, 0, -1, -1, -1, -1, 1});
  REQUIRE(ints(two.slot_NK) == Ints{0, 0, 1, -1, -1, -1, -1, 1});
  const auto weight = values_of(two.weight_NK.value());
  require_close(weight[0], 0.5, {1e-12, 0});
  require_close(weight[1], 0.5, {1e-12, 0});
  require_close(weight[2], 0.75, {1e-12, 0});
  require_close(weight[7], 0.75, {1e-12, 0});
  REQUIRE(statistics_of(two.tally).left_behind_fraction == 0.25);
  REQUIRE(statistics_of(two.tally).load_E == std::vector<double>{0.5, 0.5});
  REQUIRE(two.load_balance_loss.value().item() == 0);
  // In two groups each has its own places.
  const Routing groups = route("", logits, context_of(2, 1));
  REQUIRE(ints(groups.expert_NK) == Ints{-1, 1, 0, -1, 0, -1, -1, 1});
  REQUIRE(ints(groups.slot_NK) == Ints{-1, 0, 0, -1, 1, -1, -1, 1});
}

TEST_CASE("over tokens, a weight is divided by the number of experts that took the token",
          "[moe][router]") {
  // Expert 0: p = 1/2, 1/4, 1/4; expert 1: 3/5, 1/5, 1/5.
  const Tensor logits = Tensor::from<double>({3, 2}, {std::log(2.0), std::log(3.0), 0, 0, 0, 0});
  const Routing routing = route(", over: tokens", logits, context_of(1, 2));
  REQUIRE(ints(routing.expert_NK) == Ints{0, 1, 0, 1, -1, -1});
  const auto weight = values_of(routing.weight_NK.value());
  require_close(Tensor::from<double>({4}, {weight[0], weight[1], weight[2], weight[3]}),
                {0.25, 0.3, 0.125, 0.1}, {1e-12, 0});
  // a = 11/20, 9/40, 9/40.
  require_close(routing.load_balance_loss.value().item(), 3 * (0.55 * 0.55 + 2 * 0.225 * 0.225),
                {1e-12, 0});
  REQUIRE(statistics_of(routing.tally).left_behind_fraction == Approx(1.0 / 3));
}

TEST_CASE("skipped padding is never taken, zeroed padding gives nothing", "[moe][router]") {
  const Tensor logits = random_tensor({12, 3}, DType::f64, 5, 2);
  RouterContext context = context_of(2, 4);
  context.mask_N = Tensor::from<int32_t>({12}, {1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0});
  for (const char* over : {"experts", "tokens"}) {
    CAPTURE(over);
    const std::string keys = format(", over: {}, padding: ", over);
    const Routing zeroed = route(keys + "zeroed", logits, context);
    const Routing skipped = route(keys + "skipped", logits, context);
    const Ints zeroed_slot = ints(zeroed.slot_NK), skipped_slot = ints(skipped.slot_NK);
    const auto weight = values_of(zeroed.weight_NK.value());
    int64_t padding_taken = 0;
    for (size_t i = 0; i < weight.size(); ++i) {
      const bool is_padding = context.mask_N.span<int32_t>()[i / 3] == 0;
      if (is_padding) REQUIRE((skipped_slot[i] == -1 && weight[i] == 0));
      if (!is_padding) REQUIRE((skipped_slot[i] < 0) == (zeroed_slot[i] < 0));
      padding_taken += is_padding && zeroed_slot[i] >= 0;
    }
    // The second group has two real tokens for four places of each expert.
    REQUIRE(padding_taken == 2 * 3);
    REQUIRE(statistics_of(skipped.tally).left_behind_fraction ==
            statistics_of(zeroed.tally).left_behind_fraction);
    require_close(zeroed.load_balance_loss.value().item(), skipped.load_balance_loss.value().item(),
                  Tolerance::exact());
  }
}

TEST_CASE("a layer whose experts choose differentiates, repeats its bits and is linear",
          "[moe][layer]") {
  const std::string begin =
      "{num_experts: 3, group_size: 6, min_capacity: 1, "
      "train_capacity_factor: 1.0, router: {kind: expert_choice, ";
  check_layer_gradients(begin + "jitter: 0.1}}");
  check_layer_gradients(begin + "padding: zeroed}}");
  check_layer_gradients(begin + "over: tokens}}");
  check_layer_gradients(begin + "over: tokens, padding: skipped, jitter: 0.1}}");
  for (const char* over : {"experts", "tokens"}) {
    const std::string router =
        format("router: {{kind: expert_choice, over: {}, jitter: 0.01}}}}", over);
    check_same_bits("{num_experts: 20, group_size: 300, expert_dropout: 0.1, " + router);
    check_linear_work("{num_experts: 8, group_size: 100, " + router);
  }
}

TEST_CASE("generation chooses with the capacity of evaluation", "[moe][layer]") {
  const LayerUnderTest under_test(
      moe_config("{num_experts: 4, min_capacity: 1, eval_capacity_factor: 1.0, "
                 "router: {kind: expert_choice}}"),
      expert_shape(6, 8));
  const Var x(random_tensor({2, 20, 6}, DType::f32, 1, 2));
  ForwardContext evaluate, generate;
  generate.is_dropless = true;
  NoGradScope no_grad;
  require_same_bits(under_test.layer.forward(x, Tensor(), generate).y_BLD.value(),
                    under_test.layer.forward(x, Tensor(), evaluate).y_BLD.value());
}

TEST_CASE("follows says what expert_choice is a softmax over", "[moe][router]") {
  auto printed = [](const std::string& follows) {
    return print_config(moe_config("{follows: " + follows + ", load_balance_loss: 0.0, " +
                                   "router: {kind: expert_choice}}"));
  };
  using Catch::Contains;
  REQUIRE_THAT(printed("flaxformer"),
               Contains("over: experts") && Contains("padding: routed") && Contains("jitter: 0.0"));
  REQUIRE_THAT(printed("mesh"),
               Contains("over: tokens") && Contains("padding: zeroed") && Contains("jitter: 0.01"));
  REQUIRE(experts_per_token(moe_config("{train_capacity_factor: 1.5, "
                                       "router: {kind: expert_choice}}"),
                            StackKind::encoder) == 1.5);
}

TEST_CASE("expert_choice is refused in a decoder and with a z-loss it does not have",
          "[moe][router]") {
  using Catch::Contains;
  const std::string both = "{encoder_sparse_layers: [1], decoder_sparse_layers: [1], ";
  REQUIRE_THAT(
      refusal(both + "router: {kind: expert_choice}}"),
      Contains("router.kind") && Contains("later ones included") && Contains("decoder_router"));
  REQUIRE_THAT(refusal(both + "decoder_router: {kind: expert_choice}}"),
               Contains("decoder_router.kind"));
  REQUIRE(refusal(both + "router: {kind: expert_choice}, decoder_router: {kind: top_k}}").empty());
  REQUIRE(refusal(both + "router: {kind: expert_choice, allow_in_decoder: true}}").empty());
  REQUIRE(refusal("{router: {kind: expert_choice}, router_z_loss: 0.001}").empty());
  REQUIRE_THAT(refusal("{router: {kind: expert_choice, over: tokens}, router_z_loss: 0.001}"),
               Contains("router_z_loss") && Contains("expert selection"));
}

}  // namespace
}  // namespace stmoe::test
