// SPDX-License-Identifier: Apache-2.0
// The keys that routers share where tokens choose, on the worked example and by hand.
#include "lib/moe/token_choice.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "tests/moe/worked_example.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

void check_losses(const Routing& routing, double balance) {
  require_close(routing.load_balance_loss.value().item(), balance, kSixDigits);
  require_close(routing.router_z_loss.value().item(), kWorkedZ, kSixDigits);
}

TEST_CASE("the worked example: kept pairs and losses of one and two choices", "[moe][router]") {
  const Routing one = route_worked("{kind: top_k, k: 1}", 2);
  REQUIRE(kept_of(one) == Kept{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {4, 2, 0}});
  check_losses(one, 1.270528);
  const Routing two = route_worked("{kind: top_k, k: 2}", 2);
  REQUIRE(kept_of(two) == Kept{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {4, 2, 0}, {0, 1, 1}, {2, 2, 1}});
  check_losses(two, 2.143759);
  const Routing roomy = route_worked("{kind: top_k, k: 2, balance: first}", 3);
  REQUIRE(kept_of(roomy) == Kept{{0, 0, 0},
                                 {0, 1, 1},
                                 {1, 1, 0},
                                 {2, 0, 1},
                                 {2, 2, 1},
                                 {3, 0, 2},
                                 {3, 1, 2},
                                 {4, 2, 0},
                                 {5, 2, 2}});
  check_losses(roomy, 1.270528);
}

TEST_CASE("the worked example: both weight rules, not renormalised after dropping",
          "[moe][router]") {
  const Routing raw = route_worked("{kind: top_k, k: 2}", 3);
  const Routing shares = route_worked("{kind: top_k, k: 2, normalize: true}", 3);
  REQUIRE(kept_of(raw) == kept_of(shares));
  std::vector<double> p, share;
  for (size_t n = 0; n < 6; ++n) {
    p.insert(p.end(), kWorkedP[n].begin(), kWorkedP[n].begin() + 2);
    share.insert(share.end(), kWorkedShares[n].begin(), kWorkedShares[n].end());
  }
  require_close(raw.weight_NK.value(), p, kSixDigits);
  require_close(shares.weight_NK.value(), share, kSixDigits);
  // Token 5's first choice is dropped, its second keeps the weight that it had beside the first.
  REQUIRE(ints(raw.slot_NK)[10] == -1);
  REQUIRE(ints(raw.slot_NK)[11] == 2);
}

TEST_CASE("later choices: none, above a threshold, of several choices", "[moe][router]") {
  const Routing none = route_worked("{kind: top_k, k: 2, later_choices: none}", 6);
  REQUIRE(ints(none.expert_NK) == Ints{0, -1, 1, -1, 0, -1, 0, -1, 2, -1, 0, -1});
  // Balance counts what was chosen, statistics what is used.
  check_losses(none, 2.143759);
  REQUIRE(statistics_of(none.tally).load_E == std::vector<double>{4.0 / 6, 1.0 / 6, 1.0 / 6});
  // Shares of the second choice: .268941 .249740 .231475 .377541 .214165 .057324.
  const Routing above =
      route_worked("{kind: top_k, k: 2, later_choices: threshold, later_threshold: 0.2498}", 6);
  REQUIRE(ints(above.expert_NK) == Ints{0, 1, 1, -1, 0, -1, 0, 1, 2, -1, 0, -1});
  // The rule is the same whatever the weights; of three choices the shares are p.
  const Routing three = route_worked(
      "{kind: top_k, k: 3, normalize: true, later_choices: threshold, "
      "later_threshold: [0.21, 0.085]}",
      6);
  REQUIRE(ints(three.expert_NK) ==
          Ints{0, 1, 2, 1, 0, -1, 0, 2, -1, 0, 1, 2, 2, -1, -1, 0, -1, -1});
  require_close(three.weight_NK.value().slice(0, 3, 4), {.506480, .307196, .186324}, kSixDigits);
  // An unused choice takes no place: token 3's second choice of expert 1 comes right after token
  // 0's.
  REQUIRE(ints(above.slot_NK) == Ints{0, 1, 0, -1, 1, -1, 2, 2, 0, -1, 3, -1});
}

TEST_CASE("random later choices are used as often as their share over the threshold",
          "[moe][router]") {
  const LogitsRouter router(
      moe_config("{num_experts: 2, router: {kind: top_k, k: 2, later_choices: random}}"));
  // Shares 0.9 and 0.1: half of the second choices at the default threshold 0.2.
  constexpr int64_t kTokens = 10000;
  std::vector<double> logits;
  for (int64_t n = 0; n < kTokens; ++n) logits.insert(logits.end(), {std::log(9.0), 0.0});
  const Tensor logits_NE = Tensor::from<double>({kTokens, 2}, logits);
  RouterContext context;
  context.capacity = kTokens;
  context.key = RandomKey{5};
  for (bool is_training : {false, true}) {
    context.is_training = is_training;
    context.first_token = 0;
    const Routing routing = router.route(Var(logits_NE), context);
    const Ints expert = ints(routing.expert_NK);
    const auto used = static_cast<double>(std::count(expert.begin(), expert.end(), 1));
    REQUIRE(std::count(expert.begin(), expert.end(), 0) == kTokens);
    // Deviation 0.005; five of them.
    REQUIRE(std::abs(used / kTokens - 0.5) < 0.025);
    context.first_token = 4000;
    const Routing part = router.route(Var(logits_NE.slice(0, 4000, kTokens)), context);
    require_same_bits(part.expert_NK, routing.expert_NK.slice(0, 4000, kTokens));
  }
}

RouterContext with_padding(bool is_training) {
  RouterContext context;
  context.is_training = is_training;
  context.mask_N = Tensor::from<int32_t>({6}, {1, 1, 1, 0, 1, 0});
  return context;
}

TEST_CASE("skipped padding of one choice: f and P of all tokens, times the real share",
          "[moe][router]") {
  const Routing routing = route_worked("{kind: top_k, k: 1, balance: first, padding: skipped}", 2,
                                       "", with_padding(true));
  REQUIRE(ints(routing.expert_NK) == Ints{0, 1, 0, -1, 2, -1});
  REQUIRE(ints(routing.slot_NK) == Ints{0, 0, 1, -1, 0, -1});
  require_close(routing.load_balance_loss.value().item(), 1.270528 * 4 / 6, kSixDigits);
  auto square = [](double x) { return x * x; };
  require_close(routing.router_z_loss.value().item(),
                (square(2.407606) + square(2.475231) + square(2.545005) + square(2.616846)) / 4,
                {1e-5, 0});
  const Routing evaluated = route_worked("{kind: top_k, k: 1, balance: first, padding: skipped}", 2,
                                         "", with_padding(false));
  REQUIRE(evaluated.router_z_loss.value().item() == 0);
}

TEST_CASE("skipped padding of two choices leaves f and P's numerators", "[moe][router]") {
  const Routing routing =
      route_worked("{kind: top_k, k: 2, balance: first, padding: skipped, normalize: true}", 2, "",
                   with_padding(true));
  REQUIRE(ints(routing.expert_NK) == Ints{0, 1, 1, 0, 0, 2, -1, -1, 2, 1, -1, -1});
  REQUIRE(kept_of(routing) ==
          Kept{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {4, 2, 0}, {0, 1, 1}, {2, 2, 1}});
  // f = (2, 1, 1) / 6; P over tokens 0, 1, 2 and 4.
  const double p0 = .665241 + .228726 + .708217 + .073033,
               p1 = .244728 + .687131 + .078473 + .198524,
               p2 = .090031 + .084144 + .213311 + .728443;
  require_close(routing.load_balance_loss.value().item(), 3 * (2 * p0 + p1 + p2) / 36, kSixDigits);
}

TEST_CASE("without padding in the batch its treatment changes nothing", "[moe][router]") {
  const Routing routed = route_worked("{kind: top_k, k: 1}", 2);
  for (const char* padding : {"zeroed", "skipped"}) {
    RouterContext context;
    context.is_training = true;
    const Routing routing =
        route_worked(format("{{kind: top_k, k: 1, padding: {}}}", padding), 2, "", context);
    require_same_bits(routing.slot_NK, routed.slot_NK);
    require_close(routing.load_balance_loss.value(), routed.load_balance_loss.value(), {1e-12, 0});
    require_close(routing.router_z_loss.value(), routed.router_z_loss.value(), {1e-12, 0});
  }
}

TEST_CASE("policy sample draws experts in training and weights them by p", "[moe][router]") {
  constexpr int64_t kTokens = 20000;
  std::vector<double> logits;
  for (int64_t n = 0; n < kTokens; ++n)
    logits.insert(logits.end(), {0.0, std::log(2.0), std::log(5.0)});
  const Tensor logits_NE = Tensor::from<double>({kTokens, 3}, logits);
  RouterContext context;
  context.capacity = kTokens;
  context.key = RandomKey{7};
  context.is_training = true;
  auto shares = [&](const std::string& more) {
    const LogitsRouter router(moe_config(
        format("{{num_experts: 3, router: {{kind: top_k, k: 1, policy: sample{}}}}}", more)));
    const Routing routing = router.route(Var(logits_NE), context);
    const Ints expert = ints(routing.expert_NK);
    const auto weight = values_of(routing.weight_NK.value());
    const double p[] = {0.125, 0.25, 0.625};
    for (size_t n = 0; n < expert.size(); ++n)
      if (std::abs(weight[n] - p[static_cast<size_t>(expert[n])]) > 1e-12) FAIL("weight of " << n);
    return Tensor::from<double>({3}, statistics_of(routing.tally).load_E);
  };
  // Deviations below 0.0035; five of them.
  require_close(shares(""), {0.125, 0.25, 0.625}, {0.0175, 0});
  require_close(shares(", temperature: 0.5"), {1.0 / 30, 4.0 / 30, 25.0 / 30}, {0.0175, 0});
  context.is_training = false;
  require_close(shares(""), {0, 0, 1}, {0, 0});
}

TEST_CASE("policies input_dropout and input_jitter change the router's input in training only",
          "[moe][router]") {
  RouterContext context;
  context.key = RandomKey{3};
  context.capacity = 2000;
  const Tensor logits_NE = Tensor::full({2000, 2}, DType::f64, 1.0);
  auto route = [&](const std::string& keys) {
    const LogitsRouter router(
        moe_config(format("{{num_experts: 2, router: {{kind: top_k, k: 1, {}}}}}", keys)));
    return values_of(router.route(Var(logits_NE), context).weight_NK.value());
  };
  for (const char* keys : {"policy: input_dropout, input_dropout: 0.25", "policy: input_jitter"})
    for (double weight : route(keys)) REQUIRE(weight == 0.5);
  context.is_training = true;
  // Of inputs (4/3 or 0, 4/3 or 0): p = 1/2 when both are kept or dropped, with 5/8 of the tokens.
  const auto dropped = route("policy: input_dropout, input_dropout: 0.25");
  const double larger = 1 / (1 + std::exp(-4.0 / 3));
  double equal = 0;
  for (double weight : dropped) {
    equal += weight == 0.5;
    if (weight != 0.5) require_close(weight, larger, {1e-12, 0});
  }
  REQUIRE(std::abs(equal / 2000 - 0.625) < 0.055);
  // The default amount is Mesh TensorFlow's 0.01.
  double most = 0;
  for (double weight : route("policy: input_jitter")) most = std::max(most, weight);
  REQUIRE(most > 1 / (1 + std::exp(-0.019)));
  REQUIRE(most < 1 / (1 + std::exp(-0.02)));
}

TEST_CASE("the router in bf16 rounds input, kernel, logits and probabilities", "[moe][router]") {
  const MoeConfig config =
      moe_config("{num_experts: 4, router: {kind: top_k, k: 2, precision: bf16}}");
  ParameterStore store(RandomKey{3}, DType::f32);
  const RouterShape shape{6, 4, Initializer::normal(0.5)};
  const auto router =
      config.router.factory().make(config.router.box(), shape, ParameterScope(store, "router"));
  const Tensor kernel = store.parameters().at(0).value.value();
  const Tensor x = random_tensor({40, 6}, DType::f32, 1, 2);
  RouterContext context;
  context.capacity = 80;
  const Routing routing = router->route(Var(x), context);

  auto rounded = [](double value) {
    return static_cast<double>(static_cast<float>(bf16(static_cast<float>(value))));
  };
  const auto weight = values_of(routing.weight_NK.value());
  const Ints expert = ints(routing.expert_NK);
  size_t equal = 0;
  double z = 0;
  for (int64_t n = 0; n < 40; ++n) {
    std::vector<double> logits(4);
    double total = 0;
    for (int64_t e = 0; e < 4; ++e) {
      for (int64_t d = 0; d < 6; ++d)
        logits[static_cast<size_t>(e)] +=
            rounded(x.data<float>()[n * 6 + d]) * rounded(kernel.data<float>()[d * 4 + e]);
      logits[static_cast<size_t>(e)] = rounded(logits[static_cast<size_t>(e)]);
      total += std::exp(logits[static_cast<size_t>(e)]);
    }
    z += std::log(total) * std::log(total) / 40;
    for (size_t i = static_cast<size_t>(2 * n); i < static_cast<size_t>(2 * n + 2); ++i) {
      const double p = std::exp(logits[static_cast<size_t>(expert[i])]) / total;
      REQUIRE(weight[i] == rounded(weight[i]));
      equal += weight[i] == rounded(p);
      // One unit in the last place, where f32 and f64 round to different sides.
      require_close(weight[i], p, {0, 0.008});
    }
  }
  REQUIRE(equal >= 78);
  require_close(routing.router_z_loss.value().item(), z, {0, 0.002});
  REQUIRE(routing.weight_NK.dtype() == DType::f32);

  // The gradient is about that of the router in f32: within the rounding of its factors.
  auto gradient = [&](const char* precision) {
    const MoeConfig other = moe_config(
        format("{{num_experts: 4, router: {{kind: top_k, k: 2, precision: {}}}}}", precision));
    ParameterStore own(RandomKey{3}, DType::f32);
    const auto made =
        other.router.factory().make(other.router.box(), shape, ParameterScope(own, "router"));
    backward({made->route(Var(x), context).weight_NK}, {random_tensor({40, 2}, DType::f32, 9)});
    REQUIRE(own.parameters().at(0).value.grad().dtype() == DType::f32);
    return own.parameters().at(0).value.grad();
  };
  require_close(gradient("bf16"), values_of(gradient("f32")), {0.03, 0.03});
}

TEST_CASE("Hugging Face's noise reaches the experts, in training and in f32 only",
          "[moe][router]") {
  const MoeConfig config =
      moe_config("{num_experts: 3, follows: huggingface, router: {kind: top_k, k: 1}}");
  const LogitsRouter router(config, DType::f32);
  const Tensor x = random_tensor({12, 3}, DType::f32, 1, 2);
  RouterContext context;
  context.capacity = 12;
  REQUIRE(!router.route(Var(x), context).expert_input_ND.defined());
  context.is_training = true;
  const Var seen = router.route(Var(x), context).expert_input_ND;
  REQUIRE(seen.defined());
  const auto before = values_of(x), after = values_of(seen.value());
  double largest = 0;
  for (size_t i = 0; i < before.size(); ++i)
    largest = std::max(largest, std::abs(after[i] / before[i] - 1));
  REQUIRE(largest > 0.005);
  REQUIRE(largest <= 0.0101);
  REQUIRE(!router.route(Var(x.to(DType::bf16)), context).expert_input_ND.defined());
}

TEST_CASE("kept_first counts a dropped token as one of expert 0", "[moe][router]") {
  const Routing routing = route_worked("{kind: top_k, k: 1, balance: kept_first}", 1);
  REQUIRE(kept_of(routing) == Kept{{0, 0, 0}, {1, 1, 0}, {4, 2, 0}});
  // Tokens 2, 3, 5 were dropped by expert 0 itself; f is the same. Token 4 dropped would move.
  check_losses(routing, 1.270528);
  const LogitsRouter router(
      moe_config("{num_experts: 3, router: {kind: top_k, k: 1, balance: kept_first}}"));
  RouterContext context;
  context.capacity = 1;
  const double l2 = std::log(2.0);
  // All choose expert 2 with p 1/2: one keeps it, two count as expert 0. P = (1/4, 1/4, 1/2).
  const Tensor logits = Tensor::from<double>({3, 3}, {0, 0, l2, 0, 0, l2, 0, 0, l2});
  const Routing three = router.route(Var(logits), context);
  require_close(three.load_balance_loss.value().item(), 3 * (2.0 / 3 / 4 + 1.0 / 3 / 2),
                {1e-12, 0});
}

void check_resolved(const std::string& yaml, const TokenChoiceConfig& expected) {
  CAPTURE(yaml);
  const MoeConfig moe = moe_config(yaml);
  const auto& config = moe.router.config<TokenChoiceConfig>();
  REQUIRE(config.normalize == expected.normalize);
  REQUIRE(config.later_choices == expected.later_choices);
  REQUIRE(config.balance == expected.balance);
  REQUIRE(config.policy == expected.policy);
  REQUIRE(config.jitter == expected.jitter);
  REQUIRE(config.jitter_experts == expected.jitter_experts);
  REQUIRE(config.padding == expected.padding);
}

TokenChoiceConfig expected(bool normalize, const char* later, const char* balance, double jitter,
                           const char* padding) {
  TokenChoiceConfig config;
  config.normalize = normalize;
  config.later_choices = later;
  config.balance = balance;
  config.policy = jitter > 0 ? "input_jitter" : "argmax";
  config.jitter = jitter;
  config.jitter_experts = false;
  config.padding = padding;
  return config;
}

TEST_CASE("moe.follows fills the router's keys that a recipe leaves out", "[moe][router][config]") {
  check_resolved("{router: {kind: top_k, k: 1}}", expected(false, "all", "all", 0, "routed"));
  check_resolved("{router: {kind: top_k, k: 2}}", expected(false, "all", "all", 0, "routed"));
  check_resolved("{follows: mesh}", expected(false, "all", "first", 0.01, "skipped"));
  check_resolved("{follows: mesh, router: {kind: top_k, k: 2}}",
                 expected(true, "random", "first", 0, "skipped"));
  check_resolved("{follows: paper}", expected(false, "all", "first", 0.01, "routed"));
  check_resolved("{follows: paper, router: {kind: top_k, k: 3}}",
                 expected(true, "random", "first", 0, "routed"));
  TokenChoiceConfig huggingface = expected(false, "all", "kept_first", 0.01, "routed");
  huggingface.jitter_experts = true;
  check_resolved("{follows: huggingface}", huggingface);
  // What a recipe says wins; a policy without noise needs no jitter.
  check_resolved("{follows: paper, router: {kind: top_k, k: 2, normalize: false, balance: all}}",
                 expected(false, "random", "all", 0, "routed"));
  check_resolved("{follows: mesh, router: {kind: top_k, policy: argmax}}",
                 expected(false, "all", "first", 0, "skipped"));
  check_resolved("{router: {kind: top_k, policy: input_jitter}}",
                 expected(false, "all", "all", 0.01, "routed"));
}

TEST_CASE("router keys that contradict each other are refused with the reason",
          "[moe][router][config]") {
  const std::pair<const char*, const char*> cases[] = {
      {"{router: {kind: top_k, normalize: true}}", "the weight p / p would always be 1"},
      {"{router: {kind: top_k, later_choices: none}}", "there is no later choice"},
      {"{router: {kind: top_k, k: 4, later_threshold: [0.1, 0.2]}}", "has 2 numbers, but k is 4"},
      {"{router: {kind: top_k, later_choices: sometimes}}", "expected one of all, none"},
      {"{router: {kind: top_k, policy: argmax, jitter: 0.1}}", "but policy is argmax"},
      {"{router: {kind: top_k, policy: input_jitter, jitter: 0}}", "set policy to argmax"},
      {"{router: {kind: top_k, jitter_experts: true}}", "there is no noise to share"},
      {"{router: {kind: top_k, temperature: 0}}", "more than 0"},
      {"{router: {kind: top_k, padding: skipped}, loss_over_layers: stacks}",
       "losses belong to one layer"},
      {"{follows: huggingface, router: {kind: top_k, k: 2}}", "one expert a token"},
      {"{router: {kind: top_k, ignore_padding: true}}", "unknown key"},
      {"{router: {kind: top_k, precision: f16}}", "expected one of f32, bf16"}};
  for (const auto& [yaml, message] : cases) {
    CAPTURE(yaml);
    REQUIRE_THROWS_WITH(moe_config(yaml), Catch::Contains(message));
    REQUIRE_THROWS_AS(moe_config(yaml), UsageError);
  }
}

}  // namespace
}  // namespace stmoe::test
