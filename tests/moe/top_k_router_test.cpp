// SPDX-License-Identifier: Apache-2.0
// The top_k router against google/flaxformer's routers (scripts/golden/routing.py and
// routing_padding.py) and by hand.
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/moe/capacity.h"
#include "lib/moe/router.h"
#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;
using nlohmann::json;

json golden(const std::string& name) {
  return json::parse(std::ifstream(STMOE_SOURCE_DIR "/tests/golden/" + name));
}

template <class T>
std::vector<T> flatten(const json& value) {
  if (!value.is_array()) return {value.get<T>()};
  std::vector<T> all;
  for (const json& part : value)
    for (const T& element : flatten<T>(part)) all.push_back(element);
  return all;
}

MoeConfig config_of(const json& golden_case, const std::string& more = "") {
  return moe_config(format("{{num_experts: {}, router: {{kind: top_k, k: {}{}}}}}",
                           golden_case["num_experts"].get<int64_t>(),
                           golden_case["k"].get<int64_t>(), more));
}

Tensor logits_of(const json& golden_case, DType dtype) {
  const int64_t experts = golden_case["num_experts"];
  const auto values = flatten<double>(golden_case["logits"]);
  return Tensor::from<double>({static_cast<int64_t>(values.size()) / experts, experts}, values)
      .to(dtype);
}

RouterContext context_of(const json& golden_case) {
  RouterContext context;
  context.num_groups = golden_case["num_groups"];
  context.capacity = golden_case["capacity"];
  return context;
}

// Golden slots count within a group; ours also over groups.
Ints slots_over_groups(const json& golden_case) {
  Ints slots = flatten<int32_t>(golden_case["slot"]);
  const size_t per_group = slots.size() / golden_case["num_groups"].get<size_t>();
  for (size_t i = 0; i < slots.size(); ++i)
    if (slots[i] >= 0)
      slots[i] += static_cast<int32_t>(i / per_group) * golden_case["capacity"].get<int32_t>();
  return slots;
}

void check_case(const json& golden_case, DType dtype) {
  CAPTURE(golden_case["name"].get<std::string>(), name_of(dtype));
  const LogitsRouter router(config_of(golden_case), dtype);
  const Routing routing = router.route(Var(logits_of(golden_case, dtype)), context_of(golden_case));
  const Ints slots = slots_over_groups(golden_case);
  REQUIRE(ints(routing.expert_NK) == flatten<int32_t>(golden_case["expert"]));
  REQUIRE(ints(routing.slot_NK) == slots);
  REQUIRE(routing.weight_NK.dtype() == dtype);
  // The golden weights are 0 where dropped; ours there are not used.
  auto weights = values_of(routing.weight_NK.value());
  for (size_t i = 0; i < slots.size(); ++i)
    if (slots[i] < 0) weights[i] = 0;
  // The golden values are f32.
  require_close(Tensor::from<double>(routing.weight_NK.shape(), weights),
                flatten<double>(golden_case["weight"]), {1e-6, 1e-6});
  require_close(routing.load_balance_loss.value().item(),
                golden_case["load_balance_loss"].get<double>(), {1e-6, 2e-6});
  require_close(routing.router_z_loss.value().item(), golden_case["router_z_loss"].get<double>(),
                {1e-6, 2e-6});
  require_close(statistics_of(routing.tally).dropped_fraction,
                golden_case["dropped_fraction"].get<double>(), {1e-12, 0});
  require_close(statistics_of(routing.tally).left_behind_fraction,
                golden_case["tokens_left_behind_fraction"].get<double>(), {1e-12, 0});
}

TEST_CASE("the top_k router routes as flaxformer's tokens-choose routers",
          "[moe][router][golden]") {
  const json cases = golden("routing.json")["cases"];
  REQUIRE(cases.size() >= 15);
  for (const json& golden_case : cases) {
    check_case(golden_case, DType::f64);
    check_case(golden_case, DType::f32);
  }
}

TEST_CASE("the top_k router ignores padding as flaxformer's masked router",
          "[moe][router][golden]") {
  const json cases = golden("routing_padding.json")["cases"];
  REQUIRE(cases.size() >= 4);
  for (const json& golden_case : cases) {
    CAPTURE(golden_case["name"].get<std::string>());
    const LogitsRouter router(config_of(golden_case, ", padding: zeroed"));
    const Tensor logits_NE = logits_of(golden_case, DType::f64);
    RouterContext context = context_of(golden_case);
    const Ints mask = flatten<int32_t>(golden_case["mask"]);
    const auto num_tokens = static_cast<int64_t>(mask.size());
    context.mask_N = Tensor::from<int32_t>({num_tokens}, mask);
    // What stands at padding must not matter.
    for (int64_t n = 0; n < num_tokens; ++n)
      if (mask[static_cast<size_t>(n)] == 0)
        logits_NE.slice(0, n, n + 1).copy_from(random_tensor({1, logits_NE.dim(1)}, DType::f64, 4));
    const Routing routing = router.route(Var(logits_NE), context);

    std::map<std::vector<int64_t>, double> expected, actual;
    const json& kept = golden_case["kept_group_token_expert_slot"];
    for (size_t i = 0; i < kept.size(); ++i)
      expected[kept[i].get<std::vector<int64_t>>()] = golden_case["kept_weight"][i];
    const Ints expert = ints(routing.expert_NK), slot = ints(routing.slot_NK);
    const auto weight = values_of(routing.weight_NK.value());
    const int64_t k = routing.expert_NK.dim(1), tokens = golden_case["tokens_per_group"];
    for (size_t i = 0; i < slot.size(); ++i) {
      const int64_t n = static_cast<int64_t>(i) / k;
      if (mask[static_cast<size_t>(n)] == 0) REQUIRE(expert[i] == -1);
      if (slot[i] >= 0)
        actual[{n / tokens, n % tokens, expert[i], slot[i] % routing.capacity}] = weight[i];
    }
    REQUIRE(actual.size() == expected.size());
    for (const auto& [place, value] : expected) {
      REQUIRE(actual.contains(place));
      require_close(actual[place], value, {1e-6, 1e-6});
    }
    require_close(routing.load_balance_loss.value().item(),
                  golden_case["load_balance_loss"].get<double>(), {1e-6, 2e-6});
    require_close(routing.router_z_loss.value().item(), golden_case["router_z_loss"].get<double>(),
                  {1e-6, 2e-6});
  }
}

TEST_CASE("four tokens and two experts by hand", "[moe][router]") {
  const MoeConfig config = moe_config("{num_experts: 2, router: {kind: top_k, k: 1}}");
  const LogitsRouter router(config);
  // p of the larger expert: 3/4, 1/2 (a tie), 3/4, 9/10.
  const double l3 = std::log(3.0), l9 = std::log(9.0);
  const Tensor logits_NE = Tensor::from<double>({4, 2}, {l3, 0, 0, 0, 0, l3, l9, 0});
  RouterContext context;
  context.capacity = 2;
  const Routing routing = router.route(Var(logits_NE), context);
  REQUIRE(ints(routing.expert_NK) == Ints{0, 0, 1, 0});
  REQUIRE(ints(routing.slot_NK) == Ints{0, 1, 0, -1});
  require_close(routing.weight_NK.value(), {0.75, 0.5, 0.75, 0.9}, {1e-12, 0});
  // f = (3/4, 1/4), P = ((3/4 + 1/2 + 1/4 + 9/10) / 4, ...) = (0.6, 0.4).
  require_close(routing.load_balance_loss.value(), {2 * (0.75 * 0.6 + 0.25 * 0.4)}, {1e-12, 0});
  const double l2 = std::log(2.0), l4 = std::log(4.0), l10 = std::log(10.0);
  require_close(routing.router_z_loss.value(), {(l4 * l4 + l2 * l2 + l4 * l4 + l10 * l10) / 4},
                {1e-12, 0});
  const RoutingStatistics& statistics = statistics_of(routing.tally);
  REQUIRE(statistics.dropped_fraction == 0.25);
  REQUIRE(statistics.left_behind_fraction == 0.25);
  REQUIRE(statistics.load_E == std::vector<double>{0.75, 0.25});
  REQUIRE(load_spread(statistics.load_E).max == 1.5);
  auto entropy = [](double p) { return -p * std::log(p) - (1 - p) * std::log(1 - p); };
  require_close(statistics.entropy,
                (entropy(0.75) + entropy(0.5) + entropy(0.75) + entropy(0.9)) / 4, {1e-12, 0});
}

TEST_CASE("gradients reach the logits through weights and losses, by hand", "[moe][router]") {
  const LogitsRouter router(moe_config("{num_experts: 2, router: {kind: top_k, k: 1}}"));
  RouterContext context;
  context.capacity = 1;
  const Tensor logits_NE = Tensor::from<double>({2, 2}, {std::log(3.0), 0, std::log(3.0), 0});
  const Tensor one = Tensor::from<double>({1}, {1.0});
  const Var balance = Var::leaf(logits_NE), z = Var::leaf(logits_NE), weight = Var::leaf(logits_NE);
  // f = (1, 0): loss = 2 * mean p_0; d p_0 / d logits = (3/16, -3/16).
  backward({router.route(balance, context).load_balance_loss}, {one});
  require_close(balance.grad(), {3.0 / 16, -3.0 / 16, 3.0 / 16, -3.0 / 16}, {1e-12, 0});
  // 2 lse p / N with lse = ln 4.
  backward({router.route(z, context).router_z_loss}, {one});
  const double l4 = std::log(4.0);
  require_close(z.grad(), {0.75 * l4, 0.25 * l4, 0.75 * l4, 0.25 * l4}, {1e-12, 0});
  backward({router.route(weight, context).weight_NK}, {Tensor::from<double>({2, 1}, {1.0, 0.0})});
  require_close(weight.grad(), {3.0 / 16, -3.0 / 16, 0, 0}, {1e-12, 0});
}

TEST_CASE("no slot is used twice and no buffer exceeds its capacity", "[moe][router]") {
  const LogitsRouter router(moe_config("{num_experts: 5, router: {kind: top_k, k: 2}}"));
  RouterContext context;
  context.num_groups = 4;
  context.capacity = 13;
  const Routing routing = router.route(Var(random_tensor({4 * 60, 5}, DType::f64, 8, 3)), context);
  const Ints expert = ints(routing.expert_NK), slot = ints(routing.slot_NK);
  std::set<std::pair<int32_t, int32_t>> used;
  std::map<std::pair<int32_t, size_t>, int> filled;
  int dropped = 0;
  for (size_t i = 0; i < slot.size(); ++i) {
    REQUIRE(expert[i] >= 0);
    REQUIRE(slot[i] < 4 * 13);
    if (i % 2 == 1) REQUIRE(expert[i] != expert[i - 1]);
    if (slot[i] < 0) {
      ++dropped;
      continue;
    }
    REQUIRE(used.insert({expert[i], slot[i]}).second);
    const size_t group = i / 120;
    REQUIRE(static_cast<size_t>(slot[i]) / 13 == group);
    REQUIRE(++filled[{expert[i], group}] <= 13);
  }
  REQUIRE(dropped > 0);
  // A pair is dropped only by a full buffer.
  for (size_t i = 0; i < slot.size(); ++i)
    if (slot[i] < 0) REQUIRE(filled[{expert[i], i / 120}] == 13);
  REQUIRE(statistics_of(routing.tally).dropped_fraction == dropped / 480.0);
}

TEST_CASE("jitter changes routing in training only, by global token index", "[moe][router]") {
  const LogitsRouter router(
      moe_config("{num_experts: 4, router: {kind: top_k, k: 1, jitter: 0.3}}"));
  const Tensor logits_NE = random_tensor({32, 4}, DType::f64, 5, 2);
  RouterContext context;
  context.capacity = 32;
  context.key = RandomKey{9};
  auto weights = [&](const Tensor& rows) {
    return router.route(Var(rows), context).weight_NK.value();
  };
  const Tensor plain = weights(logits_NE);
  context.is_training = true;
  const Tensor jittered = weights(logits_NE);
  REQUIRE(values_of(jittered) != values_of(plain));
  require_same_bits(weights(logits_NE), jittered);
  context.first_token = 20;
  require_same_bits(weights(logits_NE.slice(0, 20, 32)), jittered.slice(0, 20, 32));
}

TEST_CASE("the section moe survives printing, the router's keys included",
          "[moe][router][config]") {
  const MoeConfig config = moe_config(
      "{num_experts: 6, decoder_sparse_layers: [1, 3], group_size: 512, "
      "router: {kind: top_k, k: 2, jitter: 0.125, padding: zeroed}}");
  const std::string printed = print_config(config);
  REQUIRE(print_config(moe_config(printed)) == printed);
  for (const char* part : {"jitter: 0.125", "k: 2", "padding: zeroed", "kind: top_k"})
    REQUIRE_THAT(printed, Catch::Contains(part));
}

TEST_CASE("a recipe with more choices than experts is refused", "[moe][router][config]") {
  REQUIRE_THROWS_WITH(moe_config("{num_experts: 2, router: {kind: top_k, k: 3}}"),
                      Catch::Contains("router.k") && Catch::Contains("is 3, but there are 2"));
  REQUIRE_THROWS_AS(moe_config("{router: {kind: top_k, k: 0}}"), UsageError);
  REQUIRE_THROWS_AS(moe_config("{router: {kind: top_k, jitter: 1.0}}"), UsageError);
  REQUIRE_THROWS_WITH(moe_config("{router: {kind: topk}}"), Catch::Contains("top_k"));
  REQUIRE_THROWS_AS(moe_config("{train_capacity_factor: 0}"), UsageError);
  REQUIRE_THROWS_AS(moe_config("{eval_capacity_factor: 0.0}"), UsageError);
  REQUIRE_THROWS_AS(moe_config("{min_capacity: 0}"), UsageError);
  REQUIRE_THROWS_AS(moe_config("{num_experts: 0}"), UsageError);
  REQUIRE_THROWS_AS(moe_config("{encoder_sparse_layers: [-1]}"), UsageError);
}

}  // namespace
}  // namespace stmoe::test
