// SPDX-License-Identifier: Apache-2.0
// The soft router in a whole layer against PyTorch (scripts/golden/soft.py), and by hand.
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/ops/hold_back.h"
#include "tests/moe/golden_hdf5.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

// The golden file's name of each weight.
std::vector<std::pair<std::string, std::string>> weights_of(const LayerUnderTest& under_test) {
  std::vector<std::pair<std::string, std::string>> names = {
      {"router/kernel", "kernel"}, {"experts/wi/kernel", "wi"}, {"experts/wo/kernel", "wo"}};
  if (under_test.store.parameters().size() > 3)
    names.insert(names.end(), {{"router/bias", "bias"},
                               {"router/hidden/kernel", "hidden_kernel"},
                               {"router/hidden/bias", "hidden_bias"}});
  REQUIRE(names.size() == under_test.store.parameters().size());
  return names;
}

void check_golden(const std::string& name, const std::string& keys, DType dtype,
                  Tolerance tolerance) {
  CAPTURE(name, name_of(dtype));
  const Hdf5File file = golden_file("soft.h5");
  const LayerUnderTest under_test(moe_config("{num_experts: 4, router: {kind: soft" + keys + "}}"),
                                  expert_shape(5, 6), dtype);
  for (const auto& [ours, theirs] : weights_of(under_test))
    under_test.set(ours, golden_tensor(file, name + "/" + theirs));
  const Var x = Var::leaf(golden_tensor(file, name + "/x").reshape({2, 12, 5}).to(dtype));
  const auto output = under_test.layer.forward(x, Tensor(), training(dtype));
  require_close(output.y_BLD.value().reshape({24, 5}), golden_tensor(file, name + "/y"), tolerance);
  backward({output.y_BLD}, {golden_tensor(file, name + "/dy").reshape({2, 12, 5}).to(dtype)});
  require_close(x.grad().reshape({24, 5}), golden_tensor(file, name + "/gradients/x"), tolerance);
  for (const auto& [ours, theirs] : weights_of(under_test))
    require_close(under_test.weight(ours).grad(),
                  golden_tensor(file, name + "/gradients/" + theirs), tolerance);
  REQUIRE(statistics_of(output.tally).dropped_fraction == 0);
  REQUIRE(statistics_of(output.tally).load_E == std::vector<double>(4, 0.25));
}

TEST_CASE("a soft mixture has PyTorch's output and gradients, with each gate",
          "[moe][layer][golden]") {
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::f64, Tolerance{1e-10, 1e-10}}, {DType::f32, Tolerance{2e-5, 2e-5}}}) {
    check_golden("linear", "", dtype, tolerance);
    check_golden("hidden", ", gate_hidden: 7", dtype, tolerance);
    check_golden("held", ", gate_hidden: 7, balance_margin: 0.25", dtype, tolerance);
  }
}

TEST_CASE("soft by hand: every expert takes every token, weighted by p", "[moe][router]") {
  const LogitsRouter router(moe_config("{num_experts: 2, router: {kind: soft, padding: skipped}}"));
  RouterContext context;
  context.capacity = 1;  // the layer's: not looked at
  context.mask_N = Tensor::from<int32_t>({3}, {1, 0, 1});
  const Routing routing =
      router.route(Var(Tensor::from<double>({3, 2}, {std::log(3.0), 0, 5, 1, 0, 0})), context);
  REQUIRE(ints(routing.expert_NK) == Ints{0, 1, -1, -1, 0, 1});
  REQUIRE(ints(routing.slot_NK) == Ints{0, 0, -1, -1, 2, 2});
  const auto weight = values_of(routing.weight_NK.value());
  require_close(Tensor::from<double>({4}, {weight[0], weight[1], weight[4], weight[5]}),
                {0.75, 0.25, 0.5, 0.5}, {1e-12, 0});
  REQUIRE(routing.load_balance_loss.value().item() == 0);
}

// Whether each expert waits.
Ints waits(const std::vector<double>& p, int64_t groups, double margin,
           const Tensor& mask_N = Tensor()) {
  const int64_t tokens = static_cast<int64_t>(p.size()) / 2;
  Ints result;
  for (double y :
       values_of(hold_back(Tensor::from<double>({tokens, 2}, p), groups, margin, mask_N)))
    result.push_back(y < 0);
  return result;
}

TEST_CASE("an expert that is ahead by more than the margin waits", "[moe][router]") {
  // Totals after each token: (0.8, 0.2); (1.6, 0.4), 0.6 ahead of the mean; (1.6, 1.4); (2.4, 1.6);
  // (3.2, 1.8), 0.7 ahead; (3.2, 2.8); (4, 3).
  const std::vector<double> p = {0.8, 0.2, 0.8, 0.2, 0.8, 0.2, 0.8, 0.2,
                                 0.8, 0.2, 0.8, 0.2, 0.8, 0.2, 0.8, 0.2};
  REQUIRE(waits(p, 1, 0.55) == Ints{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0});
  // In two groups the totals start anew.
  REQUIRE(waits(p, 2, 0.55) == Ints{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0});
  // Padding, here the second token, adds nothing.
  const Tensor mask = Tensor::from<int32_t>({8}, {1, 0, 1, 1, 1, 1, 1, 1});
  REQUIRE(waits(p, 1, 0.55, mask) == Ints{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0});
  REQUIRE(waits(p, 1, 100) == Ints(16, 0));
}

TEST_CASE("the constraint evens out what experts get in training only", "[moe][router]") {
  std::vector<double> values(180, 0.0);
  for (size_t i = 0; i < values.size(); i += 3) values[i] = 3;
  const Tensor logits = Tensor::from<double>({60, 3}, values);
  const LogitsRouter router(
      moe_config("{num_experts: 3, router: {kind: soft, balance_margin: 0.5}}"));
  RouterContext context;
  auto totals = [&](bool is_training) {
    context.is_training = is_training;
    const auto weight = values_of(router.route(Var(logits), context).weight_NK.value());
    std::vector<double> sums(3);
    for (size_t i = 0; i < weight.size(); ++i) sums[i % 3] += weight[i];
    return sums;
  };
  REQUIRE(totals(false)[0] > 50);
  for (double total : totals(true)) REQUIRE(std::abs(total - 20) < 2);
}

TEST_CASE("a soft layer differentiates, repeats its bits and is linear", "[moe][layer]") {
  check_layer_gradients("{num_experts: 3, router: {kind: soft}}");
  check_layer_gradients("{num_experts: 3, router: {kind: soft, gate_hidden: 4, padding: skipped}}");
  check_layer_gradients(
      "{num_experts: 3, group_size: 6, router: {kind: soft, balance_margin: 0.3}}");
  check_same_bits(
      "{num_experts: 4, group_size: 300, expert_dropout: 0.1, "
      "router: {kind: soft, gate_hidden: 8, balance_margin: 1.0}}");
  check_linear_work("{num_experts: 4, router: {kind: soft, gate_hidden: 8}}");
  REQUIRE(experts_per_token(moe_config("{num_experts: 6, router: {kind: soft}}"),
                            StackKind::decoder) == 6);
}

}  // namespace
}  // namespace stmoe::test
