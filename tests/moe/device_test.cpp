// SPDX-License-Identifier: Apache-2.0
// One sparse layer in training on the emulated GPU, for every router: output, losses, tally and all
// gradients are nearly the CPU's, whichever layout the rows have, and the same bits twice.
#include <optional>

#include <catch2/catch.hpp>

#include "lib/base/registry.h"
#include "lib/tensor/arena.h"
#include "lib/tensor/step_graph.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

struct Step {
  std::vector<std::string> names;
  std::vector<Tensor> values;  // on the host
};

// A layer on a device with what it trains on: weights and inputs drawn alike everywhere.
class TrainedLayer {
 public:
  TrainedLayer(Device device, const std::string& yaml, DType dtype = DType::f32,
               const ExpertShape& shape = expert_shape(24, 20))
      : device_(device),
        dtype_(dtype),
        store_(RandomKey{3}, DType::f32, ParameterStore::Mode::initialized, device),
        layer_(resolved(moe_config(yaml)), StackKind::encoder, shape,
               ParameterScope(store_, "moe")) {
    uint64_t seed = 70;
    for (const Parameter& parameter : store_.parameters())
      parameter.value.value().copy_from(
          random_tensor(parameter.value.shape(), DType::f32, ++seed, 0.8));
    std::vector<int32_t> mask(4 * 30, 1);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 30 < 25;
    mask_BL_ = Tensor::from<int32_t>({4, 30}, mask).on(device);
    id_BL_ = token_ids({4, 30}, 50).on(device);
    x_BLD_ = random_tensor({4, 30, 24}, dtype, 1).on(device);
    dy_BLD_ = random_tensor({4, 30, 24}, dtype, 5).on(device);
  }

  // Forward and backward, recorded as a graph where there is one.
  Step step(StepGraph* graph = nullptr) {
    for (const Parameter& parameter : store_.parameters()) parameter.value.clear_grad();
    std::optional<StepRecording> recording;
    if (graph) recording.emplace(*graph);
    const Var x = Var::leaf(x_BLD_);
    const auto output = layer_.forward(x, mask_BL_, training(dtype_), id_BL_);
    const Tensor one = Tensor::full({1}, DType::f32, 1.0, device_);
    backward({output.y_BLD, output.load_balance_loss, output.router_z_loss}, {dy_BLD_, one, one});
    if (recording) recording->run();
    Step step;
    const auto add = [&](const std::string& name, const Tensor& value) {
      REQUIRE(value.device() == device_);
      step.names.push_back(name);
      step.values.push_back(value.on(Device::cpu).clone_to_heap());
    };
    add("output", output.y_BLD.value());
    add("load_balance_loss", output.load_balance_loss.value());
    add("router_z_loss", output.router_z_loss.value());
    add("counts", output.tally.counts);
    if (output.tally.entropy.defined()) add("entropy", output.tally.entropy);
    add("x", x.grad());
    for (const Parameter& parameter : store_.parameters()) {
      add(parameter.name, parameter.value.grad());
      parameter.value.clear_grad();
    }
    return step;
  }

 private:
  Device device_;
  DType dtype_;
  ParameterStore store_;
  MoeLayer layer_;
  Tensor mask_BL_, id_BL_, x_BLD_, dy_BLD_;
};

void check_layer(const std::string& yaml, DType dtype = DType::f32,
                 const ExpertShape& shape = expert_shape(24, 20)) {
  INFO(yaml << " in " << name_of(dtype));
  const Step cpu = TrainedLayer(Device::cpu, yaml, dtype, shape).step();
  TrainedLayer there(Device::emu, yaml, dtype, shape);
  const Step emu = there.step(), again = there.step();
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

// Whether a layer's step can be recorded as a graph; if so, it gives the bits of one that was not.
bool is_recorded(const std::string& yaml) {
  INFO(yaml);
  TrainedLayer layer(Device::emu, yaml);
  const auto graph = make_step_graph(Device::emu);
  StepArena arena(Device::emu);
  Step steps[2];
  for (bool records : {false, true}) {
    ArenaStep step(arena, "train");
    try {
      steps[records] = layer.step(records ? graph.get() : nullptr);
    } catch (const HostReadError&) {
      return false;
    }
    step.finish();
  }
  for (size_t i = 0; i < steps[0].values.size(); ++i)
    require_same_bits(steps[1].values[i], steps[0].values[i]);
  return true;
}

TEST_CASE("steps of all routers but those that the host helps are graphs", "[moe][layer][cuda]") {
  for (const std::string& kind : Registry<Router>::names()) {
    if (kind.ends_with("_for_test")) continue;
    INFO(kind);
    CHECK(is_recorded("{num_experts: 5, group_size: 60, router: {kind: " + kind + "}}") ==
          (kind != "base"));
  }
  CHECK(is_recorded("{num_experts: 5, router: {kind: expert_choice, over: tokens}}"));
  // So many rows would be padding that they are compact: the host reads where experts begin.
  CHECK(!is_recorded("{num_experts: 130, router: {kind: dropless_top_k}}"));
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
  check_layer(yaml, DType::f32,
              expert_shape(24, 20, Activation::geglu, ExpertBias::multiplicative));
  check_layer(yaml, DType::f32, expert_shape(24, 20, Activation::gelu, ExpertBias::additive));
  check_layer(yaml, DType::bf16, expert_shape(24, 20, Activation::geglu));
  check_layer("{num_experts: 5, router: {kind: top_k}}", DType::bf16);
}

}  // namespace
}  // namespace stmoe::test
