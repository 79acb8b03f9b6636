// SPDX-License-Identifier: Apache-2.0
// The preset `huggingface` against SwitchTransformersSparseMLP and its losses
// (scripts/golden/huggingface_routing.py): a layer with dropped tokens, and noise in training.
#include <catch2/catch.hpp>

#include "lib/hdf5/file.h"
#include "lib/ops/add.h"
#include "lib/ops/router_input.h"
#include "tests/moe/support.h"

namespace stmoe::test {
namespace {

Tensor read(const Hdf5File& file, const std::string& name) {
  const Hdf5Dataset dataset = file.dataset(name);
  return Tensor::from<double>(Shape(dataset.shape()), dataset.values<double>());
}

void check_layer(DType dtype, Tolerance tolerance) {
  const Hdf5File file = Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/huggingface_layer.h5");
  const LayerUnderTest under_test(
      moe_config("{num_experts: 4, follows: huggingface, expert_capacity: 3}"), expert_shape(8, 10),
      dtype);
  under_test.set("router/kernel", read(file, "router_kernel"));
  under_test.set("experts/wi/kernel", read(file, "wi"));
  under_test.set("experts/wo/kernel", read(file, "wo"));
  ForwardContext context;
  context.compute = dtype;
  const Var x = Var::leaf(read(file, "x").to(dtype));
  const auto output = under_test.layer.forward(x, Tensor(), context);
  require_close(output.y_BLD.value(), read(file, "y"), tolerance);
  // The library takes the shares in f32 whatever the model's type.
  require_close(output.load_balance_loss.value(), {read(file, "load_balance_loss").item()},
                {1e-7, 1e-6});
  require_close(output.router_z_loss.value(), {read(file, "router_z_loss").item()}, tolerance);
  REQUIRE(statistics_of(output.tally).dropped_fraction > 0.05);
  const Var loss = weighted_sum({sum(multiply(output.y_BLD, Var(read(file, "dy").to(dtype)))),
                                 output.load_balance_loss, output.router_z_loss},
                                {1.0, 0.001, 0.001});
  require_close(loss.value().item(), read(file, "loss").item(), tolerance);
  backward(loss);
  require_close(x.grad(), read(file, "gradients/x"), tolerance);
  for (auto [weight, gradient] : {std::pair{"router/kernel", "gradients/router_kernel"},
                                  std::pair{"experts/wi/kernel", "gradients/wi"},
                                  std::pair{"experts/wo/kernel", "gradients/wo"}})
    require_close(under_test.weight(weight).grad(), read(file, gradient), tolerance);
}

TEST_CASE("follows: huggingface gives its layer's output, losses and gradients",
          "[moe][layer][golden]") {
  check_layer(DType::f64, {1e-9, 1e-9});
  // Sums of up to 42 x 10 products of values near one.
  check_layer(DType::f32, {2e-5, 1e-5});
}

TEST_CASE("follows: huggingface in training computes what evaluation computes of a noisy input",
          "[moe][layer]") {
  const LayerUnderTest under_test(moe_config("{num_experts: 4, follows: huggingface}"),
                                  expert_shape(8, 10));
  ForwardContext train, evaluate;
  train.is_training = true;
  train.key = RandomKey{5};
  const Tensor x = random_tensor({3, 14, 8}, DType::f32, 1, 2);
  RouterInputOptions noise;
  noise.jitter = 0.01;
  noise.key = train.key.fold("moe").fold("router").fold("jitter");
  const Tensor noisy = router_input(Var(x.reshape({42, 8})), noise).value().reshape({3, 14, 8});
  NoGradScope no_grad;
  const auto trained = under_test.layer.forward(Var(x), Tensor(), train);
  const auto evaluated = under_test.layer.forward(Var(noisy), Tensor(), evaluate);
  require_same_bits(trained.y_BLD.value(), evaluated.y_BLD.value());
  require_same_bits(trained.load_balance_loss.value(), evaluated.load_balance_loss.value());
  // Not what it computes without noise, and not by the noise in the weights alone.
  const auto plain = under_test.layer.forward(Var(x), Tensor(), evaluate);
  REQUIRE(values_of(plain.y_BLD.value()) != values_of(trained.y_BLD.value()));
  const LayerUnderTest router_only(
      moe_config("{num_experts: 4, follows: huggingface, router: {jitter_experts: false}}"),
      expert_shape(8, 10));
  REQUIRE(values_of(router_only.layer.forward(Var(x), Tensor(), train).y_BLD.value()) !=
          values_of(trained.y_BLD.value()));
}

}  // namespace
}  // namespace stmoe::test
