// SPDX-License-Identifier: Apache-2.0
// The base router against scipy's optimum (scripts/golden/base.py), and by hand.
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/hdf5/file.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

using Ints = std::vector<int32_t>;

Routing route(const Tensor& scores_NE, bool is_training, const std::string& keys = "",
              const Tensor& mask_N = Tensor()) {
  const LogitsRouter router(
      moe_config(format("{{num_experts: {}, router: {{kind: base{}}}}}", scores_NE.dim(1), keys)),
      scores_NE.dtype());
  RouterContext context;
  context.is_training = is_training;
  context.capacity = 1;  // the layer's: not looked at
  context.mask_N = mask_N;
  return router.route(Var(scores_NE), context);
}

TEST_CASE("base reaches the best total that scipy finds, in training", "[moe][router][golden]") {
  const auto file = Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/base.h5");
  for (const char* name : {"one", "even", "uneven", "more experts than tokens", "many", "wide",
                           "one favourite", "low rank", "a ladder"}) {
    const auto shape = file.dataset(format("{}/scores", name)).shape();
    const auto values = file.dataset(format("{}/scores", name)).values<double>();
    for (DType dtype : {DType::f64, DType::f32}) {
      CAPTURE(name, name_of(dtype));
      const Routing routing = route(Tensor::from<double>(Shape(shape), values).to(dtype), true);
      const Ints expert = ints(routing.expert_NK);
      double total = 0;
      for (size_t n = 0; n < expert.size(); ++n)
        total += values[n * static_cast<size_t>(shape[1]) + static_cast<size_t>(expert[n])];
      require_close(total, file.dataset(format("{}/total", name)).values<double>()[0],
                    {1e-9, 1e-12});
      REQUIRE(expert == file.dataset(format("{}/expert", name)).values<int32_t>());
      REQUIRE(statistics_of(routing.tally).dropped_fraction == 0);
      REQUIRE(routing.capacity == (routing.expert_NK.dim(0) + shape[1] - 1) / shape[1]);
    }
  }
}

TEST_CASE("base by hand: balanced in training, the best expert in evaluation", "[moe][router]") {
  const double ln3 = std::log(3.0);
  const Tensor scores = Tensor::from<double>({4, 2}, {ln3, 0, ln3, -ln3, 0, 0, 2, 1});
  const Routing train = route(scores, true);
  // Tokens 2 (loses nothing) and 3 (loses 1; token 0 would lose ln 3) move.
  REQUIRE(ints(train.expert_NK) == Ints{0, 0, 1, 1});
  REQUIRE(ints(train.slot_NK) == Ints{0, 1, 0, 1});
  require_close(train.weight_NK.value(), {0.75, 0.75, 0.5, 1 / (1 + std::exp(-1.0))}, {1e-12, 0});
  const Routing evaluate = route(scores, false);
  REQUIRE(ints(evaluate.expert_NK) == Ints{0, 0, 0, 0});
  REQUIRE(ints(evaluate.slot_NK) == Ints{0, 1, 2, 3});
  require_close(evaluate.weight_NK.value(), {0.75, 0.75, 0.5, 1 / (1 + std::exp(-2.0))},
                {1e-12, 0});
  const Tensor mask = Tensor::from<int32_t>({4}, {1, 0, 0, 1});
  REQUIRE(ints(route(scores, true, ", padding: skipped", mask).expert_NK) == Ints{0, -1, -1, 1});
  REQUIRE(ints(route(scores, false, ", padding: skipped", mask).expert_NK) == Ints{0, -1, -1, 0});
  REQUIRE(train.load_balance_loss.value().item() == 0);
}

TEST_CASE("a base layer differentiates, repeats its bits and is linear", "[moe][layer]") {
  const auto statistics =
      check_layer_gradients("{num_experts: 3, group_size: 6, router: {kind: base}}");
  REQUIRE(load_spread(statistics.load_E).max == Approx(1));
  check_layer_gradients("{num_experts: 3, router: {kind: base, padding: skipped}}");
  check_same_bits("{num_experts: 6, group_size: 100, expert_dropout: 0.1, router: {kind: base}}");
  check_linear_work("{num_experts: 5, groups: sequence, router: {kind: base}}");
}

TEST_CASE("evaluation of a base layer looks at no other token", "[moe][layer]") {
  const LayerUnderTest under_test(moe_config("{num_experts: 4, router: {kind: base}}"),
                                  expert_shape(6, 8), DType::f64);
  const Tensor x = random_tensor({1, 20, 6}, DType::f64, 1, 2);
  ForwardContext context;
  context.compute = DType::f64;
  NoGradScope no_grad;
  const Tensor all = under_test.layer.forward(Var(x), Tensor(), context).y_BLD.value();
  const Var first(x.slice(1, 0, 7).contiguous());
  require_close(under_test.layer.forward(first, Tensor(), context).y_BLD.value(),
                values_of(all.slice(1, 0, 7)), {1e-12, 1e-12});
}

TEST_CASE("base is allowed in a decoder and refused with a z-loss", "[moe][router]") {
  REQUIRE(refusal("{decoder_sparse_layers: [1], router: {kind: base}}").empty());
  REQUIRE_THAT(refusal("{router: {kind: base}, router_z_loss: 0.001}"),
               Catch::Contains("router_z_loss") && Catch::Contains("no logits"));
}

}  // namespace
}  // namespace stmoe::test
