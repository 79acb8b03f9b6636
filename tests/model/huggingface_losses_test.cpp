// SPDX-License-Identifier: Apache-2.0
// moe.follows: huggingface in a whole model with dropped tokens, against
// SwitchTransformersForConditionalGeneration in f64 (scripts/golden/huggingface_routing.py): router
// losses of joined layers, one a stack and added, the total loss and its gradients.
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/ops/add.h"
#include "tests/model/golden.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

constexpr double kBalance = 0.001, kZ = 0.001;

Tensor read(const Hdf5File& file, const std::string& path) {
  const Hdf5Dataset dataset = file.dataset(path);
  Tensor tensor = Tensor::empty(Shape(dataset.shape()), parse_dtype(name_of(dataset.type())));
  dataset.read(tensor);
  return tensor;
}

TEST_CASE("follows: huggingface joins the layers of a stack in its router losses",
          "[model][golden][moe]") {
  const Hdf5File file =
      Hdf5File::open(Path(STMOE_SOURCE_DIR) / "tests/golden/huggingface_model.h5");
  auto config = parse_config<test::GoldenConfig>(file.string_attribute("config"), "golden");
  for (const std::string recompute : {"none", "block"}) {
    config.model.recompute = recompute;
    MoeConfig moe = parse_config<MoeConfig>(
        "{follows: huggingface, expert_capacity: 3, num_experts: 4, "
        "encoder_sparse_layers: [1, 3], decoder_sparse_layers: [1, 3]}",
        "golden");
    REQUIRE(*moe.load_balance_loss == kBalance);
    REQUIRE(*moe.router_z_loss == kZ);
    ParameterStore store(RandomKey{}, DType::f64, ParameterStore::Mode::zeroed);
    const EncoderDecoder model(config.model, moe, store);
    for (const Parameter& parameter : store.parameters())
      parameter.value.value().copy_from(read(file, "parameters/" + parameter.name));
    ForwardContext context;
    context.compute = DType::f64;
    const ModelOutputs outputs = model.forward(
        {read(file, "encoder_tokens"), Tensor(), read(file, "decoder_inputs"), Tensor()}, context);
    for (const LayerTally& layer : outputs.routing)
      REQUIRE(statistics_of(layer.tally).dropped_fraction > 0);
    auto both = [&](const std::string& loss) {
      return read(file, "encoder_" + loss).item() + read(file, "decoder_" + loss).item();
    };
    // The library takes the shares in f32 whatever the model's type.
    test::require_close(outputs.load_balance_loss.value().item(), both("load_balance_loss"),
                        {1e-7, 1e-7});
    test::require_close(outputs.router_z_loss.value().item(), both("router_z_loss"),
                        {1e-10, 1e-10});
    const CrossEntropy loss = test::loss_of(outputs.logits_BTV, read(file, "targets"));
    const Var total =
        weighted_sum({loss.total, outputs.load_balance_loss, outputs.router_z_loss},
                     {1.0 / static_cast<double>(loss.read().num_targets), kBalance, kZ});
    test::require_close(total.value().item(), read(file, "loss").item(), {1e-9, 1e-9});
    backward(total);
    for (const Parameter& parameter : store.parameters()) {
      INFO(parameter.name);
      test::require_close(parameter.value.grad(), read(file, "gradients/" + parameter.name),
                          {1e-9, 1e-8});
    }
  }
}

}  // namespace
}  // namespace stmoe
