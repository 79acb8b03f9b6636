// SPDX-License-Identifier: Apache-2.0
// The noisy_top_k router against the paper's formulas differentiated by PyTorch, with the same
// noise (scripts/golden/noisy_top_k.py), and by hand.
#include <cmath>

#include <catch2/catch.hpp>

#include "tests/moe/golden_hdf5.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

RouterContext context_of(bool is_training) {
  RouterContext context;
  context.is_training = is_training;
  context.capacity = 100;
  context.key = RandomKey{12345};
  context.first_token = 100;
  return context;
}

void check_golden(const Hdf5File& file, const std::string& name, int64_t k, bool is_training,
                  DType dtype, Tolerance tolerance) {
  CAPTURE(name, name_of(dtype));
  const RouterUnderTest under_test(
      moe_config(format("{{num_experts: 5, router: {{kind: noisy_top_k, k: {}, importance: 0.7, "
                        "load: 1.3}}}}",
                        k)),
      6, dtype);
  under_test.weight("kernel").value().copy_from(golden_tensor(file, name + "/kernel"));
  under_test.weight("noise/kernel").value().copy_from(golden_tensor(file, name + "/noise_kernel"));
  const Var x = Var::leaf(golden_tensor(file, name + "/x").to(dtype));
  const Routing routing = under_test.router->route(x, context_of(is_training));
  REQUIRE(ints(routing.expert_NK) == golden_ints(file, name + "/expert"));
  require_close(routing.weight_NK.value(), golden_tensor(file, name + "/weights"), tolerance);
  require_close(routing.load_balance_loss.value(), golden_tensor(file, name + "/load_balance_loss"),
                tolerance);
  const Tensor dw = golden_tensor(file, name + "/dw").to(dtype);
  backward({routing.weight_NK, routing.load_balance_loss}, {dw, Tensor::full({1}, dtype, 1.0)});
  require_close(x.grad(), golden_tensor(file, name + "/gradients/x"), tolerance);
  require_close(under_test.weight("kernel").grad(), golden_tensor(file, name + "/gradients/kernel"),
                tolerance);
  const Tensor& dnoise = under_test.weight("noise/kernel").grad();
  REQUIRE(dnoise.defined() == is_training);
  if (is_training)
    require_close(dnoise, golden_tensor(file, name + "/gradients/noise_kernel"), tolerance);
}

TEST_CASE("noisy_top_k gives the paper's gates, losses and gradients, noise included",
          "[moe][router][golden]") {
  const auto file = golden_file("noisy_top_k.h5");
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::f64, Tolerance{1e-10, 1e-10}}, {DType::f32, Tolerance{2e-5, 2e-5}}}) {
    check_golden(file, "train_k1", 1, true, dtype, tolerance);
    check_golden(file, "train_k2", 2, true, dtype, tolerance);
    check_golden(file, "train_k4", 4, true, dtype, tolerance);
    check_golden(file, "train_all", 5, true, dtype, tolerance);
    check_golden(file, "evaluate_k2", 2, false, dtype, tolerance);
  }
}

TEST_CASE("noisy_top_k by hand: without noise, equals to the lower index", "[moe][router]") {
  const RouterUnderTest under_test(
      moe_config("{num_experts: 3, router: {kind: noisy_top_k, k: 2, capacity: factor}}"), 3,
      DType::f64);
  under_test.weight("kernel").value().copy_from(
      Tensor::from<double>({3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1}));
  RouterContext context;
  context.capacity = 2;
  const double ln3 = std::log(3.0);
  const Routing routing = under_test.router->route(
      Var(Tensor::from<double>({3, 3}, {0, ln3, 0, ln3, 2 * ln3, -9, 0, ln3, ln3})), context);
  REQUIRE(ints(routing.expert_NK) == Ints{1, 0, 1, 0, 1, 2});
  // The third first choice of expert 1 finds no place.
  REQUIRE(ints(routing.slot_NK) == Ints{0, 0, 1, 1, -1, 0});
  require_close(routing.weight_NK.value(), {0.75, 0.25, 0.75, 0.25, 0.5, 0.5}, {1e-12, 0});
  // Importance 0.5, 2, 0.5: mean 1, variance 0.5; load 2, 3, 1: mean 2, variance 2 / 3.
  require_close(routing.load_balance_loss.value().item(), 0.5 + 1.0 / 6, {1e-9, 0});
  REQUIRE(statistics_of(routing.tally).dropped_fraction == Approx(1.0 / 6));
}

TEST_CASE("noisy_top_k starts at zero: the load is nearly even, and the noise is counted globally",
          "[moe][router]") {
  const std::string yaml = "{num_experts: 4, router: {kind: noisy_top_k, k: 1}}";
  const RouterUnderTest under_test(moe_config(yaml), 6, DType::f32);
  const Tensor x = random_tensor({800, 6}, DType::f32, 1);
  const Routing all = under_test.router->route(Var(x), context_of(true));
  REQUIRE(load_spread(statistics_of(all.tally).load_E).max < 1.25);
  // The second half of the batch by itself.
  RouterContext half = context_of(true);
  half.first_token += 400;
  const Routing second = under_test.router->route(Var(x.slice(0, 400, 800).contiguous()), half);
  const Ints expert = ints(all.expert_NK);
  REQUIRE(ints(second.expert_NK) == Ints(expert.begin() + 400, expert.end()));
  // In evaluation there is no noise: all equal.
  REQUIRE(statistics_of(under_test.router->route(Var(x), context_of(false)).tally).load_E[0] == 1);
  const RouterUnderTest other(
      moe_config("{num_experts: 4, router: {kind: noisy_top_k, starts_at_zero: false}}"), 6,
      DType::f32);
  REQUIRE(values_of(other.weight("kernel").value())[0] != 0);
}

TEST_CASE("skipped padding has no place and no part in the losses", "[moe][router]") {
  const RouterUnderTest under_test(
      moe_config("{num_experts: 4, router: {kind: noisy_top_k, padding: skipped}}"), 6, DType::f64);
  move_weights(under_test.store);
  const Tensor x = random_tensor({9, 6}, DType::f64, 1, 2);
  RouterContext context = context_of(true);
  context.mask_N = Tensor::from<int32_t>({9}, {1, 1, 1, 1, 1, 0, 0, 0, 0});
  const Routing masked = under_test.router->route(Var(x), context);
  context.mask_N = Tensor();
  const Routing alone = under_test.router->route(Var(x.slice(0, 0, 5).contiguous()), context);
  REQUIRE(masked.load_balance_loss.value().item() == alone.load_balance_loss.value().item());
  const Ints expert = ints(masked.expert_NK);
  REQUIRE(Ints(expert.begin(), expert.begin() + 10) == ints(alone.expert_NK));
  REQUIRE(std::count(expert.begin(), expert.end(), -1) == 8);
}

TEST_CASE("a noisy_top_k layer differentiates, repeats its bits and is linear", "[moe][layer]") {
  const std::string begin =
      "{num_experts: 4, group_size: 6, min_capacity: 1, "
      "train_capacity_factor: 0.75, router: {kind: noisy_top_k, capacity: factor, ";
  REQUIRE(check_layer_gradients(begin + "k: 2}}").dropped_fraction > 0);
  check_layer_gradients(begin + "k: 1, load: 0.5, padding: skipped}}");
  check_layer_gradients(begin + "k: 4, noise_epsilon: 0.0}}");
  check_same_bits(
      "{num_experts: 6, group_size: 300, expert_dropout: 0.1, "
      "router: {kind: noisy_top_k}}");
  check_linear_work("{num_experts: 6, groups: sequence, router: {kind: noisy_top_k}}");
}

TEST_CASE("more choices than experts, and a z-loss, are refused", "[moe][router]") {
  using Catch::Contains;
  REQUIRE_THAT(refusal("{num_experts: 2, router: {kind: noisy_top_k, k: 3}}"),
               Contains("router.k") && Contains("2 experts"));
  REQUIRE_THAT(refusal("{router: {kind: noisy_top_k}, router_z_loss: 0.001}"),
               Contains("router_z_loss") && Contains("kept experts"));
  REQUIRE_THAT(refusal("{encoder_sparse_layers: [0], loss_over_layers: stacks, "
                       "router: {kind: noisy_top_k}}"),
               Contains("loss_over_layers"));
}

}  // namespace
}  // namespace stmoe::test
