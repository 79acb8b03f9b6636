// SPDX-License-Identifier: Apache-2.0
// The sinkhorn router against Megatron-LM's rule in PyTorch (scripts/golden/sinkhorn.py), and by
// hand.
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/ops/sinkhorn.h"
#include "tests/moe/golden_hdf5.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

Routing route(const Var& logits_NE, const std::string& keys, const RouterContext& context) {
  const LogitsRouter router(moe_config(format("{{num_experts: {}, router: {{kind: sinkhorn{}}}}}",
                                              logits_NE.dim(1), keys)),
                            logits_NE.dtype());
  return router.route(logits_NE, context);
}

RouterContext context_of(bool is_training, int64_t capacity = 1) {
  RouterContext context;
  context.is_training = is_training;
  context.capacity = capacity;
  return context;
}

void check_golden(const Hdf5File& file, const std::string& name, int64_t k, bool is_training,
                  DType dtype, Tolerance tolerance) {
  CAPTURE(name, name_of(dtype));
  const Var logits = Var::leaf(golden_tensor(file, name + "/logits").to(dtype));
  require_close(sinkhorn(logits.value(), {}), golden_tensor(file, name + "/normalized"), tolerance);
  const Routing routing = route(logits, format(", k: {}", k), context_of(is_training));
  REQUIRE(ints(routing.expert_NK) == golden_ints(file, name + "/expert"));
  require_close(routing.weight_NK.value(), golden_tensor(file, name + "/weights"), tolerance);
  backward({routing.weight_NK}, {golden_tensor(file, name + "/dw").to(dtype)});
  require_close(logits.grad(), golden_tensor(file, name + "/gradient"), tolerance);
  REQUIRE(statistics_of(routing.tally).dropped_fraction == 0);
}

TEST_CASE("sinkhorn normalises, chooses and weighs as Megatron-LM", "[moe][router][golden]") {
  const Hdf5File file = golden_file("sinkhorn.h5");
  // The matrix depends on 1e-8 in a place that our shift of the rows moves; f32 sums of 48.
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::f64, Tolerance{1e-8, 1e-5}}, {DType::f32, Tolerance{1e-6, 3e-5}}}) {
    check_golden(file, "k1", 1, true, dtype, tolerance);
    check_golden(file, "k2", 2, true, dtype, tolerance);
    check_golden(file, "k1 evaluate", 1, false, dtype, tolerance);
    check_golden(file, "k3 evaluate", 3, false, dtype, tolerance);
    check_golden(file, "large logits", 1, true, dtype, tolerance);
  }
}

TEST_CASE("sinkhorn by hand: the favourite of all is shared out", "[moe][router]") {
  // Each token prefers expert 0; tokens 2 and 3 less so, and go to expert 1.
  const Var logits(Tensor::from<double>({4, 2}, {3, 0, 3, 0, 2, 1, 2, 1}));
  const Routing train = route(logits, "", context_of(true));
  REQUIRE(ints(train.expert_NK) == Ints{0, 0, 1, 1});
  REQUIRE(ints(train.slot_NK) == Ints{0, 1, 0, 1});
  auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  require_close(train.weight_NK.value(), {sigmoid(3), sigmoid(3), sigmoid(1), sigmoid(1)},
                {1e-12, 0});
  REQUIRE(ints(route(logits, "", context_of(false)).expert_NK) == Ints{0, 0, 0, 0});
  // Equal everywhere: the lower index.
  const Var equal(Tensor::zeros({4, 2}, DType::f64));
  REQUIRE(ints(route(equal, "", context_of(true)).expert_NK) == Ints{0, 0, 0, 0});
  // The layer's capacity where it is asked for.
  const Routing some = route(logits, ", capacity: factor", context_of(true, 1));
  REQUIRE(ints(some.slot_NK) == Ints{0, -1, 0, -1});
  REQUIRE(statistics_of(some.tally).dropped_fraction == 0.5);
}

TEST_CASE("sinkhorn balances groups apart and leaves skipped padding out", "[moe][router]") {
  const Tensor logits = random_tensor({40, 5}, DType::f64, 3, 2);
  RouterContext context = context_of(true);
  context.num_groups = 2;
  const Ints both = ints(route(Var(logits), "", context).expert_NK);
  const Var second(logits.slice(0, 20, 40).contiguous());
  REQUIRE(ints(route(second, "", context_of(true)).expert_NK) ==
          Ints(both.begin() + 20, both.end()));
  RouterContext padded = context_of(true);
  Ints mask(40, 1);
  std::fill(mask.begin() + 20, mask.end(), 0);
  padded.mask_N = Tensor::from<int32_t>({40}, mask);
  const Ints skipped = ints(route(Var(logits), ", padding: skipped", padded).expert_NK);
  REQUIRE(Ints(skipped.begin(), skipped.begin() + 20) == Ints(both.begin(), both.begin() + 20));
  REQUIRE(Ints(skipped.begin() + 20, skipped.end()) == Ints(20, -1));
}

TEST_CASE("a sinkhorn layer differentiates, repeats its bits and is linear", "[moe][layer]") {
  check_layer_gradients("{num_experts: 3, group_size: 6, router: {kind: sinkhorn, jitter: 0.1}}");
  check_layer_gradients("{num_experts: 4, router: {kind: sinkhorn, k: 2, padding: skipped}}");
  check_same_bits(
      "{num_experts: 6, group_size: 300, expert_dropout: 0.1, "
      "router: {kind: sinkhorn, jitter: 0.01}}");
  check_linear_work("{num_experts: 5, groups: sequence, router: {kind: sinkhorn}}");
}

TEST_CASE("evaluation of a sinkhorn layer looks at no other token", "[moe][layer]") {
  const Var logits(random_tensor({30, 5}, DType::f64, 3, 2));
  const Ints all = ints(route(logits, "", context_of(false)).expert_NK);
  const Var first(logits.value().slice(0, 0, 9).contiguous());
  REQUIRE(ints(route(first, "", context_of(false)).expert_NK) ==
          Ints(all.begin(), all.begin() + 9));
}

TEST_CASE("sinkhorn is allowed in a decoder, has a z-loss, and refuses too many choices",
          "[moe][router]") {
  REQUIRE(refusal("{decoder_sparse_layers: [1], router: {kind: sinkhorn}, router_z_loss: 0.1}")
              .empty());
  REQUIRE_THAT(refusal("{num_experts: 2, router: {kind: sinkhorn, k: 3}}"),
               Catch::Contains("router.k"));
}

}  // namespace
}  // namespace stmoe::test
