// SPDX-License-Identifier: Apache-2.0
// The hash router: there is nothing to learn and no public table to compare with, so what the table
// must be is checked, and a layer's output against its experts run one by one.
#include <set>

#include <catch2/catch.hpp>

#include "lib/ops/activation.h"
#include "lib/ops/linear.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

Tensor id_range(int32_t begin, int32_t end) {
  Ints ids;
  for (int32_t id = begin; id < end; ++id) ids.push_back(id);
  return Tensor::from<int32_t>({end - begin}, ids);
}

// Experts of the ids in the layer with this path.
Routing route(const std::string& keys, const Tensor& id_N, const std::string& path = "a",
              int64_t capacity = 3, const Tensor& mask_N = Tensor()) {
  const MoeConfig config = moe_config("{num_experts: 7, router: {kind: hash" + keys + "}}");
  ParameterStore store(RandomKey{1});
  const auto router = config.router.factory().make(
      config.router.box(), {4, 7, Initializer::constant(0)}, ParameterScope(store, path));
  REQUIRE(store.parameters().empty());
  RouterContext context;
  context.token_id_N = id_N;
  context.mask_N = mask_N;
  context.capacity = capacity;
  return router->route(Var(Tensor::zeros({id_N.numel(), 4}, DType::f32)), context);
}

Ints experts_of(const std::string& keys, const Tensor& id_N, const std::string& path = "a") {
  return ints(route(keys, id_N, path).expert_NK);
}

TEST_CASE("hash gives every expert one id of each run, at random", "[moe][router]") {
  const Ints expert = experts_of("", id_range(0, 7 * 200));
  std::set<Ints> runs;
  for (auto begin = expert.begin(); begin != expert.end(); begin += 7) {
    runs.insert(Ints(begin, begin + 7));
    REQUIRE(std::set<int32_t>(begin, begin + 7).size() == 7);
  }
  // Of 5040 permutations, 200 drawn: repeats are rare.
  REQUIRE(runs.size() > 190);
  // The first id of a run meets every expert about equally often: 28.6 of 200, deviation 4.9.
  std::vector<int> count(7);
  for (size_t i = 0; i < expert.size(); i += 7) ++count[static_cast<size_t>(expert[i])];
  for (int times : count) REQUIRE(std::abs(times - 200.0 / 7) < 20);
}

TEST_CASE("hash hangs on the id, the seed and the layer alone", "[moe][router]") {
  const Tensor all = id_range(0, 300);
  const Ints expert = experts_of("", all);
  // In another order, with another id first.
  const Ints some = experts_of("", Tensor::from<int32_t>({5}, {250, 3, 299, 3, 0}));
  REQUIRE(some == Ints{expert[250], expert[3], expert[299], expert[3], expert[0]});
  REQUIRE(experts_of(", seed: 1", all) != expert);
  REQUIRE(experts_of("", all, "b") != expert);
  REQUIRE(experts_of(", per_layer: false", all, "a") == experts_of(", per_layer: false", all, "b"));
}

TEST_CASE("hash drops nothing unless it keeps to the layer's capacity", "[moe][router]") {
  const Tensor same = Tensor::from<int32_t>({5}, {4, 4, 4, 4, 4});
  const Routing all = route("", same);
  REQUIRE(ints(all.slot_NK) == Ints{0, 1, 2, 3, 4});
  REQUIRE(values_of(all.weight_NK.value()) == std::vector<double>(5, 1.0));
  REQUIRE(load_spread(statistics_of(all.tally).load_E).max == Approx(7));
  const Routing some = route(", capacity: factor", same);
  REQUIRE(ints(some.slot_NK) == Ints{0, 1, 2, -1, -1});
  REQUIRE(statistics_of(some.tally).dropped_fraction == 0.4);
  const Tensor mask = Tensor::from<int32_t>({5}, {0, 1, 1, 0, 1});
  const Routing skipped = route("", same, "a", 3, mask);
  REQUIRE(ints(skipped.slot_NK) == Ints{-1, 0, 1, -1, 2});
  REQUIRE(ints(route(", padding: routed", same, "a", 3, mask).slot_NK) == Ints{0, 1, 2, 3, 4});
  REQUIRE_THROWS_WITH(route("", Tensor::from<int32_t>({2}, {0, -1})), Catch::Contains("id -1"));
}

TEST_CASE("in a hash layer a token's result is its expert's", "[moe][layer]") {
  const LayerUnderTest under_test(moe_config("{num_experts: 3, router: {kind: hash}}"),
                                  expert_shape(4, 6), DType::f64);
  const Var x(random_tensor({2, 9, 4}, DType::f64, 1));
  const Tensor id_BL = token_ids({2, 9}, 30);
  const auto output = under_test.layer.forward(x, Tensor(), training(DType::f64), id_BL);
  REQUIRE(output.load_balance_loss.value().item() == 0);
  // The table of the layer at this path.
  const MoeConfig config = moe_config("{num_experts: 3, router: {kind: hash}}");
  ParameterStore store(RandomKey{1});
  const auto router = config.router.factory().make(
      config.router.box(), {4, 3, Initializer::constant(0)}, ParameterScope(store, "moe/router"));
  RouterContext context;
  context.token_id_N = id_BL.reshape({18});
  const Ints expert = ints(router->route(Var(x.value().reshape({18, 4})), context).expert_NK);
  for (int64_t n = 0; n < 18; ++n) {
    const int64_t e = expert[static_cast<size_t>(n)];
    auto kernel = [&](const char* name) {
      const Tensor all = under_test.weight(format("experts/{}/kernel", name)).value();
      return Var(all.slice(0, e, e + 1).contiguous().reshape({all.dim(1), all.dim(2)}));
    };
    const Var row(x.value().reshape({18, 4}).slice(0, n, n + 1).contiguous());
    const Var y = linear(relu(linear(row, kernel("wi"))), kernel("wo"));
    require_close(output.y_BLD.value().reshape({18, 4}).slice(0, n, n + 1), values_of(y.value()),
                  {1e-12, 1e-12});
  }
}

TEST_CASE("a hash layer differentiates, repeats its bits and is linear", "[moe][layer]") {
  check_layer_gradients("{num_experts: 3, group_size: 6, router: {kind: hash}}");
  const auto statistics = check_layer_gradients(
      "{num_experts: 3, min_capacity: 1, train_capacity_factor: 0.5, "
      "router: {kind: hash, capacity: factor, padding: routed}}");
  REQUIRE(statistics.dropped_fraction > 0);
  check_same_bits("{num_experts: 5, group_size: 300, expert_dropout: 0.1, router: {kind: hash}}");
  check_linear_work("{num_experts: 4, groups: sequence, router: {kind: hash}}");
}

TEST_CASE("a z-loss without logits is refused", "[moe][router]") {
  REQUIRE_THAT(refusal("{router: {kind: hash}, router_z_loss: 0.001}"),
               Catch::Contains("without logits"));
  REQUIRE(refusal("{router: {kind: hash}, decoder_router: {kind: top_k}, router_z_loss: 0.001}")
              .empty());
}

}  // namespace
}  // namespace stmoe::test
