// SPDX-License-Identifier: Apache-2.0
// One sparse layer in training on the emulated GPU, for every router: output, losses, tally and all
// gradients are nearly the CPU's, whichever layout the rows have, and the same bits twice.
#include <catch2/catch.hpp>

#include "lib/base/registry.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

struct Step {
  std::vector<std::string> names;
  std::vector<Tensor> values;  // on the host
};

// Forward and backward of a layer on a device: weights drawn alike everywhere.
Step step_on(Device device, const std::string& yaml, DType dtype, Activation activation,
             ExpertBias bias) {
  const ExpertShape shape = expert_shape(24, 20, activation, bias);
  ParameterStore store(RandomKey{3}, DType::f32, ParameterStore::Mode::initialized, device);
  const MoeLayer layer(resolved(moe_config(yaml)), StackKind::encoder, shape,
                       ParameterScope(store, "moe"));
  uint64_t seed = 70;
  for (const Parameter& parameter : store.parameters())
    parameter.value.value().copy_from(
        random_tensor(parameter.value.shape(), DType::f32, ++seed, 0.8));
  std::vector<int32_t> mask(4 * 30, 1);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 30 < 25;
  const Tensor mask_BL = Tensor::from<int32_t>({4, 30}, mask).on(device);
  const Tensor id_BL = token_ids({4, 30}, 50).on(device);
  const Var x = Var::leaf(random_tensor({4, 30, 24}, dtype, 1).on(device));
  const auto output = layer.forward(x, mask_BL, training(dtype), id_BL);
  const Tensor one = Tensor::full({1}, DType::f32, 1.0, device);
  backward({output.y_BLD, output.load_balance_loss, output.router_z_loss},
           {random_tensor(x.shape(), dtype, 5).on(device), one, one});
  Step step;
  const auto add = [&](const std::string& name, const Tensor& value) {
    REQUIRE(value.device() == device);
    step.names.push_back(name);
    step.values.push_back(value.on(Device::cpu));
  };
  add("output", output.y_BLD.value());
  add("load_balance_loss", output.load_balance_loss.value());
  add("router_z_loss", output.router_z_loss.value());
  add("counts", output.tally.counts);
  if (output.tally.entropy.defined()) add("entropy", output.tally.entropy);
  add("x", x.grad());
  for (const Parameter& parameter : store.parameters()) add(parameter.name, parameter.value.grad());
  return step;
}

void check_layer(const std::string& yaml, DType dtype = DType::f32,
                 Activation activation = Activation::relu, ExpertBias bias = ExpertBias::none) {
  INFO(yaml << " in " << name_of(dtype));
  const Step cpu = step_on(Device::cpu, yaml, dtype, activation, bias);
  const Step emu = step_on(Device::emu, yaml, dtype, activation, bias);
  const Step again = step_on(Device::emu, yaml, dtype, activation, bias);
  REQUIRE(emu.names == cpu.names);
  for (size_t i = 0; i < cpu.values.size(); ++i) {
    INFO(cpu.names[i]);
    // Sums of a hundred terms of about one; bf16: rounded once more on the way.
    const Tolerance tolerance = dtype == DType::f32 ? Tolerance{1e-4, 1e-4} : Tolerance{0.1, 0.05};
    require_close(emu.values[i], cpu.values[i],
                  cpu.names[i] == "counts" ? Tolerance::exact() : tolerance);
    require_same_bits(again.values[i], emu.values[i]);
  }
}

TEST_CASE("every router's layer trains on a GPU as on the CPU", "[moe][layer][cuda]") {
  for (const std::string& kind : Registry<Router>::names())
    if (!kind.ends_with("_for_test"))
      check_layer("{num_experts: 5, group_size: 60, expert_dropout: 0.2, router: {kind: " + kind +
                  "}}");
}

TEST_CASE("settings of the routers train on a GPU as on the CPU", "[moe][layer][cuda]") {
  for (const char* keys : {
           "{kind: top_k, k: 2, normalize: true, later_choices: random, padding: zeroed}",
           "{kind: top_k, k: 2, later_choices: threshold, padding: skipped, balance: first}",
           "{kind: top_k, k: 3, balance: kept_first, jitter: 0.1}",
           "{kind: top_k, policy: sample}",
           "{kind: top_k, policy: input_dropout}",
           "{kind: batch_prioritized, k: 2}",
           "{kind: dropless_top_k, k: 2}",
           "{kind: expert_choice, over: tokens, padding: skipped}",
           "{kind: noisy_top_k, capacity: factor, padding: skipped}",
           "{kind: soft, gate_hidden: 7, balance_margin: 0.5, padding: skipped}",
           "{kind: hash, capacity: factor}",
           "{kind: sinkhorn, k: 2, capacity: factor}",
       })
    check_layer(
        format("{{num_experts: 5, groups: sequence, sequences_per_group: 2, router: {}}}", keys));
}

TEST_CASE("a GPU's layer without capacity may have compact rows", "[moe][layer][cuda]") {
  REQUIRE(rows_per_expert(Device::emu, 2 * 120, 130, 120) == 0);
  check_layer("{num_experts: 130, router: {kind: dropless_top_k, k: 2}}");
}

TEST_CASE("experts of every form train on a GPU as on the CPU", "[moe][layer][cuda]") {
  const std::string yaml =
      "{num_experts: 37, train_capacity_factor: 1.5, router: {kind: top_k, k: 2}}";
  check_layer(yaml, DType::f32, Activation::geglu, ExpertBias::multiplicative);
  check_layer(yaml, DType::f32, Activation::gelu, ExpertBias::additive);
  check_layer(yaml, DType::bf16, Activation::geglu);
  check_layer("{num_experts: 5, router: {kind: top_k}}", DType::bf16);
}

}  // namespace
}  // namespace stmoe::test
