// SPDX-License-Identifier: Apache-2.0
// The section `moe`: what `follows` fills, a router for each stack, and what is refused.
#include <catch2/catch.hpp>

#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

// Looks at later tokens, so that a decoder must refuse it.
class ForesightRouter final : public Router {
 public:
  struct Config {
    std::optional<int64_t> filled;
    void visit(auto& v) { v("filled", filled, "null: the number of experts"); }
    void resolve(const MoeConfig& moe) {
      if (!filled) filled = moe.num_experts;
    }
    void validate_in(const RouterUse& use, Problems& problems) const {
      if (use.is_in_decoder) problems.add(use.key("kind"), "foresight in a decoder");
    }
    double experts_per_token(const MoeConfig&) const { return 1.5; }
  };
  ForesightRouter(const Config&, const RouterShape&, const ParameterScope&) {}
  Routing route(const Var&, const RouterContext&) const override { return {}; }
};

STMOE_REGISTER(Router, "foresight_for_test", router_factory<ForesightRouter>())

}  // namespace

TEST_CASE("follows fills the layer's keys that a recipe leaves out", "[moe][config]") {
  const MoeConfig flaxformer = moe_config("{num_experts: 4}");
  CHECK(flaxformer.groups == "tokens");
  CHECK(flaxformer.capacity_rounding == "nearest");
  CHECK(flaxformer.loss_over_layers == "mean");
  CHECK(flaxformer.load_balance_loss == 0.01);
  const MoeConfig mesh = moe_config("{follows: mesh}");
  CHECK(mesh.group_size == 1024);
  CHECK(mesh.capacity_rounding == "down");
  CHECK(mesh.loss_over_layers == "sum");
  const MoeConfig huggingface = moe_config("{follows: huggingface}");
  CHECK(huggingface.groups == "sequence");
  CHECK(huggingface.expert_capacity == 64);
  CHECK(huggingface.router_z_loss == 0.001);
  CHECK(huggingface.loss_over_layers == "stacks");
  CHECK(moe_config("{follows: paper}").router_z_loss == 0.0);
  CHECK(moe_config("{follows: paper, router: {k: 2}}").router_z_loss == 0.001);
  CHECK(moe_config("{follows: huggingface, groups: batch, expert_capacity: 0}").groups == "batch");
  CHECK_THROWS_WITH(moe_config("{follows: mtf}"), Catch::Contains("mesh"));
}

TEST_CASE("a capacity may be rounded down or fixed, and groups may be several sequences",
          "[moe][capacity]") {
  CHECK(expert_capacity(1.25, 100, 8, 4) == 16);
  CHECK(expert_capacity(1.25, 100, 8, 4, CapacityRounding::down) == 15);
  CHECK(expert_capacity(1.25, 50, 8, 4, CapacityRounding::down) == 7);
  CHECK(expert_capacity(1.0, 28, 8, 4, CapacityRounding::down) == 4);
  CHECK(TokenGroups{"sequence", 0, 4}.number(16, 512) == 4);
  CHECK(TokenGroups{"sequence", 0, 4}.number(6, 512) == 1);  // as group_size: none left over
  CHECK(TokenGroups{"sequence", 0, 1}.number(3, 7) == 3);
}

TEST_CASE("a fixed capacity takes the factor's place", "[moe][capacity]") {
  auto dropped = [](const std::string& keys) {
    const LayerUnderTest under_test(moe_config("{num_experts: 2, groups: sequence, " + keys + "}"),
                                    expert_shape(4, 5));
    const Tensor x = random_tensor({3, 8, 4}, DType::f32, 1);
    return statistics_of(under_test.layer.forward(Var(x), Tensor(), {}).tally).dropped_fraction;
  };
  CHECK(dropped("expert_capacity: 8") == 0);
  CHECK(dropped("expert_capacity: 1, eval_capacity_factor: 2") == 1.0 - 6.0 / 24.0);
}

TEST_CASE("the decoder may have a router of its own", "[moe][config]") {
  const MoeConfig own = moe_config(
      "{encoder_sparse_layers: [0], decoder_sparse_layers: [0], "
      "router: {kind: foresight_for_test}, decoder_router: {kind: top_k, k: 2}}");
  CHECK(own.router_of(StackKind::encoder).kind() == "foresight_for_test");
  CHECK(own.router_of(StackKind::decoder).kind() == "top_k");
  CHECK(experts_per_token(own, StackKind::encoder) == 1.5);
  CHECK(experts_per_token(own, StackKind::decoder) == 2);
  CHECK(moe_config(print_config(own)).router_of(StackKind::decoder).kind() == "top_k");
  CHECK_THROWS_WITH(moe_config("{decoder_sparse_layers: [0], router: {kind: foresight_for_test}}"),
                    Catch::Contains("router.kind: foresight in a decoder"));
  CHECK_THROWS_WITH(moe_config("{decoder_sparse_layers: [0], decoder_router: {kind: "
                               "foresight_for_test}}"),
                    Catch::Contains("decoder_router.kind: foresight in a decoder"));
  CHECK_NOTHROW(moe_config("{encoder_sparse_layers: [0], router: {kind: foresight_for_test}}"));
}

TEST_CASE("a router may fill its keys from the layer's", "[moe][config]") {
  const MoeConfig config = moe_config("{num_experts: 5, router: {kind: foresight_for_test}}");
  CHECK_THAT(print_config(config), Catch::Contains("filled: 5"));
}

TEST_CASE("keys of the section moe that do not go together are refused", "[moe][config]") {
  struct Case {
    const char *yaml, *message;
  };
  const std::vector<Case> cases = {
      {"{groups: batch, group_size: 8}", "group_size: is 8, but groups is batch"},
      {"{sequences_per_group: 4}", "sequences_per_group: is 4, but groups is tokens"},
      {"{encoder_num_sparse: 2}", "sparse_layout: is listed"},
      {"{loss_over_layers: stacks, encoder_sparse_layers: [0], router: {kind: foresight_for_test}}",
       "loss_over_layers: is stacks, but router 'foresight_for_test'"}};
  for (const Case& refused : cases)
    CHECK_THROWS_WITH(moe_config(refused.yaml), Catch::Contains(refused.message));
}

}  // namespace stmoe::test
