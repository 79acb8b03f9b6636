// SPDX-License-Identifier: Apache-2.0
// A router is one file: here one whose experts hang on the token's id (a fixed expert per id, no
// weights, no losses), which the layer runs without knowing of it.
#include <filesystem>

#include <catch2/catch.hpp>

#include "lib/ops/assign_slots.h"
#include "lib/ops/routing_counts.h"
#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

class IdRouter final : public Router {
 public:
  struct Config {
    int64_t stride = 1;
    void visit(auto& v) { v("stride", stride, "step between the experts of neighbours"); }
    void validate_in(const RouterUse& use, Problems& problems) const {
      if (stride >= use.moe.num_experts) problems.add(use.key("stride"), "is {}", stride);
    }
    double experts_per_token(const MoeConfig&) const { return 1; }
  };
  IdRouter(const Config& config, const RouterShape& shape, const ParameterScope&)
      : config_(config), num_experts_(shape.num_experts) {}

  Routing route(const Var& x_ND, const RouterContext& context) const override {
    std::vector<int32_t> expert;
    for (int32_t id : context.token_id_N.span<int32_t>())
      expert.push_back(static_cast<int32_t>(id * config_.stride % num_experts_));
    Routing routing;
    routing.expert_NK = Tensor::from<int32_t>({x_ND.dim(0), 1}, expert);
    // As many rows as the fullest expert needs: a router may have its own capacity.
    routing.capacity = x_ND.dim(0);
    routing.slot_NK = assign_slots(routing.expert_NK, {num_experts_, 1, routing.capacity, {}});
    routing.weight_NK = Var(Tensor::full({x_ND.dim(0), 1}, x_ND.dtype(), 1.0));
    routing.load_balance_loss = routing.router_z_loss = Var(Tensor::zeros({1}, x_ND.dtype()));
    routing.tally.counts = routing_counts(routing.expert_NK, routing.slot_NK, num_experts_);
    return routing;
  }

 private:
  Config config_;
  int64_t num_experts_;
};

STMOE_REGISTER(Router, "by_id_for_test", router_factory<IdRouter>())

TEST_CASE("a router of one file is chosen by its kind and run by the layer", "[moe][router]") {
  const LayerUnderTest under_test(
      moe_config("{num_experts: 3, router: {kind: by_id_for_test, stride: 2}}"), expert_shape(4, 5),
      DType::f64);
  REQUIRE(under_test.store.parameters().size() == 2);
  const Tensor ids = Tensor::from<int32_t>({1, 5}, {0, 1, 2, 3, 4});
  const Var x = Var::leaf(random_tensor({1, 5, 4}, DType::f64, 1));
  ForwardContext context;
  context.is_training = true;
  context.compute = DType::f64;
  const auto output = under_test.layer.forward(x, Tensor(), context, ids);
  REQUIRE(statistics_of(output.tally).load_E == std::vector<double>{0.4, 0.2, 0.4});
  REQUIRE(statistics_of(output.tally).dropped_fraction == 0);
  backward({output.y_BLD}, {random_tensor({1, 5, 4}, DType::f64, 2)});
  REQUIRE(x.grad().defined());
  REQUIRE_THROWS_WITH(moe_config("{num_experts: 2, router: {kind: by_id_for_test, stride: 2}}"),
                      Catch::Contains("router.stride"));
}

TEST_CASE("every file of lib/moe/routers has registered its kind", "[moe][router]") {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(STMOE_SOURCE_DIR "/lib/moe/routers")) {
    if (entry.path().extension() != ".cpp") continue;
    CAPTURE(entry.path());
    REQUIRE(Registry<Router>::contains(entry.path().stem().string()));
    ++files;
  }
  REQUIRE(files > 0);
}

}  // namespace
}  // namespace stmoe::test
