// SPDX-License-Identifier: Apache-2.0
// Routers where tokens choose, beside top_k: the worked example, golden cases, and what must hold
// for each of them.
#include <algorithm>
#include <set>

#include <catch2/catch.hpp>

#include "tests/moe/golden_json.h"
#include "tests/moe/layer_checks.h"
#include "tests/moe/worked_example.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

TEST_CASE("batch_prioritized gives places to the surest tokens first", "[moe][router]") {
  // By the first gate: 5, 4, 2, 1, 0, 3.
  const Routing one = route_worked("{kind: batch_prioritized, k: 1}", 2);
  REQUIRE(kept_of(one) == Kept{{5, 0, 0}, {4, 2, 0}, {2, 0, 1}, {1, 1, 0}});
  require_close(one.load_balance_loss.value().item(), 1.270528, kSixDigits);
  // Second choices come after all first ones, in the same order: 5 and 2 want expert 2, 4, 0 and 3
  // expert 1; 1 wants expert 0, which is full.
  const Routing two = route_worked("{kind: batch_prioritized, k: 2}", 2);
  REQUIRE(kept_of(two) == Kept{{5, 0, 0}, {4, 2, 0}, {2, 0, 1}, {1, 1, 0}, {5, 2, 1}, {4, 1, 1}});
  require_close(two.load_balance_loss.value().item(), 2.143759, kSixDigits);
  // Normalised weights do not change whose turn it is.
  const Routing shares = route_worked("{kind: batch_prioritized, k: 2, normalize: true}", 2);
  REQUIRE(kept_of(shares) == kept_of(two));
  require_close(shares.weight_NK.value().slice(0, 5, 6), kWorkedShares[5], kSixDigits);
}

TEST_CASE("batch_prioritized routes as flaxformer's tokens-choose routers",
          "[moe][router][golden]") {
  const auto cases = golden_json("routing.json")["batch_prioritized_cases"];
  REQUIRE(cases.size() >= 3);
  for (const auto& golden_case : cases) {
    CAPTURE(golden_case["name"].get<std::string>());
    const int64_t experts = golden_case["num_experts"];
    const LogitsRouter router(
        moe_config(format("{{num_experts: {}, router: {{kind: batch_prioritized, k: {}}}}}",
                          experts, golden_case["k"].get<int64_t>())));
    RouterContext context;
    context.num_groups = golden_case["num_groups"];
    context.capacity = golden_case["capacity"];
    const Routing routing =
        router.route(Var(golden_matrix(golden_case["logits"], experts, DType::f64)), context);
    Ints slots = flat_values<int32_t>(golden_case["slot"]);
    auto expected_weight = flat_values<double>(golden_case["weight"]);
    auto weight = values_of(routing.weight_NK.value());
    const size_t per_group = slots.size() / static_cast<size_t>(context.num_groups);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] >= 0)
        slots[i] += static_cast<int32_t>(i / per_group) * static_cast<int32_t>(context.capacity);
      else
        weight[i] = 0;
    }
    REQUIRE(ints(routing.expert_NK) == flat_values<int32_t>(golden_case["expert"]));
    REQUIRE(ints(routing.slot_NK) == slots);
    require_close(Tensor::from<double>({static_cast<int64_t>(weight.size())}, weight),
                  expected_weight, {1e-6, 1e-6});
    require_close(routing.load_balance_loss.value().item(),
                  golden_case["load_balance_loss"].get<double>(), {1e-6, 2e-6});
    require_close(routing.router_z_loss.value().item(), golden_case["router_z_loss"].get<double>(),
                  {1e-6, 2e-6});
  }
}

TEST_CASE("batch_prioritized ignores padding as flaxformer's masked router",
          "[moe][router][golden]") {
  const auto cases = golden_json("routing_padding.json")["batch_prioritized_cases"];
  REQUIRE(cases.size() >= 2);
  for (const auto& golden_case : cases) {
    CAPTURE(golden_case["name"].get<std::string>());
    const int64_t experts = golden_case["num_experts"], tokens = golden_case["tokens_per_group"];
    const LogitsRouter router(moe_config(
        format("{{num_experts: {}, router: {{kind: batch_prioritized, k: {}, padding: zeroed}}}}",
               experts, golden_case["k"].get<int64_t>())));
    RouterContext context;
    context.num_groups = golden_case["num_groups"];
    context.capacity = golden_case["capacity"];
    const Ints mask = flat_values<int32_t>(golden_case["mask"]);
    context.mask_N = Tensor::from<int32_t>({static_cast<int64_t>(mask.size())}, mask);
    const Routing routing =
        router.route(Var(golden_matrix(golden_case["logits"], experts, DType::f64)), context);
    Kept expected;
    for (const auto& row : golden_case["kept_group_token_expert_slot"]) {
      const int group = row[0];
      expected.insert({group * static_cast<int>(tokens) + row[1].get<int>(), row[2].get<int>(),
                       group * static_cast<int>(context.capacity) + row[3].get<int>()});
    }
    REQUIRE(kept_of(routing) == expected);
    require_close(routing.load_balance_loss.value().item(),
                  golden_case["load_balance_loss"].get<double>(), {1e-6, 2e-6});
    require_close(routing.router_z_loss.value().item(), golden_case["router_z_loss"].get<double>(),
                  {1e-6, 2e-6});
  }
}

TEST_CASE("dropless_top_k keeps every choice whatever the capacity", "[moe][router]") {
  const Routing routing = route_worked("{kind: dropless_top_k, k: 2}", 1);
  REQUIRE(routing.capacity == 6);
  REQUIRE(kept_of(routing).size() == 12);
  REQUIRE(ints(routing.slot_NK) == Ints{0, 1, 0, 4, 1, 1, 2, 2, 0, 3, 3, 2});
  REQUIRE(statistics_of(routing.tally).dropped_fraction == 0);
  // What top_k with room for all gives.
  const Routing roomy = route_worked("{kind: top_k, k: 2}", 6);
  require_same_bits(routing.slot_NK, roomy.slot_NK);
  require_same_bits(routing.weight_NK.value(), roomy.weight_NK.value());
  require_same_bits(routing.load_balance_loss.value(), roomy.load_balance_loss.value());
}

TEST_CASE("switch_max: a full expert keeps its largest gates", "[moe][router]") {
  const Routing routing = route_worked("{kind: switch_max}", 2);
  // Expert 0 is wanted by 0, 2, 3 and 5 with .665 .708 .506 .900.
  REQUIRE(kept_of(routing) == Kept{{5, 0, 0}, {2, 0, 1}, {1, 1, 0}, {4, 2, 0}});
  require_close(routing.weight_NK.value(), {.665241, .687131, .708217, .506480, .728443, .900417},
                kSixDigits);
  require_close(routing.load_balance_loss.value().item(), 1.270528, kSixDigits);
  require_close(routing.router_z_loss.value().item(), kWorkedZ, kSixDigits);
  // Equal gates: the lower token.
  const LogitsRouter router(moe_config("{num_experts: 2, router: {kind: switch_max}}"));
  RouterContext context;
  context.capacity = 2;
  const Tensor equal = Tensor::from<double>({4, 2}, {1, 0, 2, 0, 1, 0, 1, 0});
  REQUIRE(ints(router.route(Var(equal), context).slot_NK) == Ints{1, 0, -1, -1});
}

TEST_CASE("no_token_left_behind sends a token on to an expert with room", "[moe][router]") {
  const Routing routing = route_worked("{kind: no_token_left_behind}", 2);
  // 3 and 5 find expert 0 full; their second choices are 1 and 2.
  REQUIRE(kept_of(routing) ==
          Kept{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {4, 2, 0}, {3, 1, 1}, {5, 2, 1}});
  require_close(routing.weight_NK.value(), {.665241, .687131, .708217, .307196, .728443, .054754},
                kSixDigits);
  REQUIRE(statistics_of(routing.tally).dropped_fraction == 0);
  // Loads are those of the first choices.
  REQUIRE(statistics_of(routing.tally).load_E == std::vector<double>{4.0 / 6, 1.0 / 6, 1.0 / 6});
  // Three rounds with three experts: every expert is chosen by all in some round, f = 1.
  require_close(routing.load_balance_loss.value().item(), 1.0, kSixDigits);
  const Routing two = route_worked("{kind: no_token_left_behind, rounds: 2}", 1);
  require_close(two.load_balance_loss.value().item(), 2.143759 / 2, kSixDigits);
  REQUIRE(kept_of(two) == Kept{{0, 0, 0}, {1, 1, 0}, {4, 2, 0}});
  REQUIRE(ints(two.expert_NK) == Ints{0, 1, 0, 0, 2, 0});
  REQUIRE(statistics_of(two.tally).dropped_fraction == 0.5);
}

const std::vector<std::string> kRouters = {
    "kind: top_k, k: 1",
    "kind: top_k, k: 2, normalize: true, later_choices: random, balance: first",
    "kind: top_k, k: 3, later_choices: threshold, later_threshold: [0.3, 0.2], policy: sample",
    "kind: top_k, k: 2, policy: input_dropout, balance: kept_first",
    "kind: batch_prioritized, k: 1, jitter: 0.1",
    "kind: batch_prioritized, k: 2, normalize: true",
    "kind: dropless_top_k, k: 1",
    "kind: dropless_top_k, k: 2, normalize: true, later_choices: random",
    "kind: switch_max",
    "kind: switch_max, policy: input_jitter",
    "kind: no_token_left_behind",
    "kind: no_token_left_behind, rounds: 2, policy: sample",
};

TEST_CASE("no place is used twice, none beyond the capacity, choices are distinct",
          "[moe][router]") {
  constexpr int64_t kGroups = 3, kTokens = 40, kExperts = 5, kCapacity = 9;
  const Tensor logits_NE = random_tensor({kGroups * kTokens, kExperts}, DType::f64, 8, 3);
  std::vector<int32_t> mask(kGroups * kTokens, 1);
  for (size_t n = 5; n < mask.size(); n += 7) mask[n] = 0;
  for (const std::string& keys : kRouters)
    for (const char* padding : {"routed", "zeroed", "skipped"}) {
      CAPTURE(keys, padding);
      const LogitsRouter router(
          moe_config(format("{{num_experts: 5, router: {{{}, padding: {}}}}}", keys, padding)));
      RouterContext context;
      context.is_training = true;
      context.key = RandomKey{11};
      context.num_groups = kGroups;
      context.capacity = kCapacity;
      context.mask_N = Tensor::from<int32_t>({kGroups * kTokens}, mask);
      const Routing routing = router.route(Var(logits_NE), context);
      const Ints expert = ints(routing.expert_NK), slot = ints(routing.slot_NK);
      const auto k = static_cast<size_t>(routing.expert_NK.dim(1));
      std::set<std::pair<int32_t, int32_t>> used;
      for (size_t i = 0; i < slot.size(); ++i) {
        const size_t token = i / k;
        for (size_t j = token * k; j < i; ++j) REQUIRE((expert[i] < 0 || expert[j] != expert[i]));
        if (mask[token] == 0 && std::string(padding) != "routed") REQUIRE(expert[i] == -1);
        if (expert[i] < 0) REQUIRE(slot[i] == -1);
        if (slot[i] < 0) continue;
        REQUIRE(used.insert({expert[i], slot[i]}).second);
        REQUIRE(slot[i] / routing.capacity == static_cast<int64_t>(token) / kTokens);
      }
      REQUIRE(!used.empty());
      REQUIRE(routing.load_balance_loss.value().item() > 0);
    }
}

TEST_CASE("tokens that no expert took get zero from the layer, the others something",
          "[moe][layer]") {
  for (const std::string& keys : kRouters) {
    CAPTURE(keys);
    const LayerUnderTest under_test(
        moe_config("{num_experts: 5, min_capacity: 1, train_capacity_factor: 0.5, "
                   "router: {" +
                   keys + "}}"),
        expert_shape(6, 40));
    move_weights(under_test.store, "/router/");
    const Tensor x = random_tensor({4, 25, 6}, DType::f32, 6, 2);
    NoGradScope no_grad;
    const auto output = under_test.layer.forward(Var(x), Tensor(), training(DType::f32));
    const auto y = values_of(output.y_BLD.value());
    int zeros = 0;
    for (size_t n = 0; n < 100; ++n)
      zeros += std::all_of(y.begin() + static_cast<ptrdiff_t>(6 * n),
                           y.begin() + static_cast<ptrdiff_t>(6 * n + 6),
                           [](double value) { return value == 0; });
    require_close(statistics_of(output.tally).left_behind_fraction, zeros / 100.0, {1e-12, 0});
    REQUIRE((zeros > 0) == (keys.find("dropless") == std::string::npos));
  }
}

TEST_CASE("the section moe survives printing with every router and preset",
          "[moe][router][config]") {
  for (const std::string& keys : kRouters)
    for (const char* follows : {"flaxformer", "mesh", "paper", "huggingface"}) {
      const bool has_one_choice =
          keys.find("k: 2") == std::string::npos && keys.find("k: 3") == std::string::npos;
      if (!has_one_choice && std::string(follows) == "huggingface") continue;
      CAPTURE(keys, follows);
      const std::string printed = print_config(
          moe_config("{follows: " + std::string(follows) + ", router: {" + keys + "}}"));
      REQUIRE(print_config(moe_config(printed)) == printed);
    }
}

TEST_CASE("layers that are joined have factors whose product is the loss", "[moe][router]") {
  const Tensor logits_NE = random_tensor({60, 5}, DType::f64, 8, 3);
  for (const std::string& keys : kRouters) {
    CAPTURE(keys);
    const MoeConfig config = moe_config("{num_experts: 5, router: {" + keys + "}}");
    REQUIRE(config.router.factory().gives_balance_parts);
    std::vector<Routing> routings;
    for (bool wants_parts : {false, true}) {
      ParameterStore store(RandomKey{1}, DType::f64);
      RouterShape shape{5, 5, Initializer::normal(1.0)};
      shape.wants_balance_parts = wants_parts;
      const auto router =
          config.router.factory().make(config.router.box(), shape, ParameterScope(store, "router"));
      RouterContext context;
      context.is_training = true;
      context.key = RandomKey{2};
      context.num_groups = 3;
      context.capacity = 4;
      routings.push_back(router->route(Var(logits_NE), context));
    }
    REQUIRE(!routings[0].balance.defined());
    const BalanceParts& parts = routings[1].balance;
    REQUIRE(parts.share_GE.shape() == Shape{3, 5});
    const auto share = values_of(parts.share_GE), p = values_of(parts.probability_GE.value());
    double product = 0;
    for (size_t i = 0; i < share.size(); ++i) product += share[i] * p[i] * 5 / 3;
    for (const Routing& routing : routings)
      require_close(routing.load_balance_loss.value().item(), product, {1e-12, 1e-12});
  }
}

TEST_CASE("the whole layer differentiates with every router where tokens choose", "[moe][layer]") {
  double dropped = 0;
  for (const std::string& keys : kRouters) {
    const std::string begin = "{num_experts: 3, group_size: 6, min_capacity: 1, ";
    dropped += check_layer_gradients(begin + "train_capacity_factor: 0.75, router: {" + keys + "}}")
                   .dropped_fraction;
    check_layer_gradients(begin + "router: {" + keys + ", padding: skipped}}");
  }
  REQUIRE(dropped > 1);
  for (const char* follows : {"mesh", "paper", "huggingface"})
    check_layer_gradients(format(
        "{{num_experts: 3, expert_capacity: 2, follows: {}, router: {{jitter: 0.2}}}}", follows));
}

// As check_linear_work, but how many choices are used or dropped is not exactly twice as many.
void check_nearly_linear_work(const std::string& yaml) {
  CAPTURE(yaml);
  const LayerUnderTest under_test(moe_config(yaml), expert_shape(24, 20));
  move_weights(under_test.store, "/router/");
  const Work once = work_of_step(under_test, 4), twice = work_of_step(under_test, 8);
  REQUIRE(once.all_flops() > 0);
  REQUIRE(twice.all_flops() < 2.2 * once.all_flops());
  REQUIRE(twice.bytes < 2.2 * once.bytes);
}

TEST_CASE("routers where tokens choose: equal bits, linear work", "[moe][layer]") {
  for (const std::string& keys : kRouters) {
    check_same_bits(
        "{num_experts: 6, group_size: 300, train_capacity_factor: 1.0, expert_dropout: 0.1, "
        "router: {" +
        keys + "}}");
    check_nearly_linear_work("{num_experts: 8, router: {" + keys + "}}");
  }
  check_same_bits("{num_experts: 6, router: {kind: top_k, k: 2, precision: bf16}}");
}

TEST_CASE("routers that look at later tokens are refused in a decoder", "[moe][router]") {
  using Catch::Contains;
  const std::string both = "{encoder_sparse_layers: [1], decoder_sparse_layers: [1], ";
  for (const char* kind : {"batch_prioritized", "switch_max"}) {
    CAPTURE(kind);
    REQUIRE_THAT(refusal(both + "router: {kind: " + kind + "}}"),
                 Contains("router.kind") && Contains("later ones") && Contains("decoder_router"));
    REQUIRE_THAT(refusal(both + "decoder_router: {kind: " + kind + "}}"),
                 Contains("decoder_router.kind"));
    REQUIRE(refusal(both + "router: {kind: " + kind + ", allow_in_decoder: true}}").empty());
    REQUIRE(refusal(both + "router: {kind: " + kind + "}, decoder_router: {kind: top_k}}").empty());
    REQUIRE(
        refusal("{encoder_sparse_layers: [1], router: {kind: " + std::string(kind) + "}}").empty());
  }
  for (const char* kind : {"dropless_top_k", "no_token_left_behind"})
    REQUIRE(refusal(both + "router: {kind: " + kind + "}}").empty());
  REQUIRE_THAT(refusal("{router: {kind: batch_prioritized, k: 9}}"),
               Contains("router.k") && Contains("is 9, but there are 8"));
  REQUIRE_THAT(refusal("{router: {kind: dropless_top_k, normalize: true}}"),
               Contains("would always be 1"));
  REQUIRE_THAT(refusal("{router: {kind: no_token_left_behind, rounds: 0}}"),
               Contains("at least 1"));
  REQUIRE_THAT(refusal("{router: {kind: switch_max, policy: sample, jitter: 0.1}}"),
               Contains("but policy is sample"));
}

}  // namespace
}  // namespace stmoe::test
