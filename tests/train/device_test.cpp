// SPDX-License-Identifier: Apache-2.0
// Whole training steps on a GPU, emulated and, where there is one, real: the losses of the CPU, the
// same bytes twice, the same bytes recorded as graphs.
#include <catch2/catch.hpp>

#include "lib/tensor/device_info.h"
#include "lib/tensor/device_memory.h"
#include "lib/train/step_runner.h"
#include "tests/support/close.h"

namespace stmoe::test {
namespace {

Recipe tiny_recipe(const std::string& more = "") {
  return parse_config<Recipe>(
      "model: {d_model: 32, d_ff: 48, d_kv: 16, num_heads: 2, encoder_layers: 2, decoder_layers: "
      "2, vocabulary_size: 96}\n"
      "moe: {num_experts: 4, encoder_sparse_layers: [1], decoder_sparse_layers: [1]}\n"
      "data: {input_length: 24, target_length: 12, batch_size: 8}\n" +
          more,
      "recipe");
}

Batch random_batch(const Recipe& recipe, uint64_t seed) {
  const auto tokens = [&](int64_t length, std::string_view name) {
    Tensor result = Tensor::empty_on_heap({recipe.data.batch_size, length}, DType::i32);
    RandomStream stream(RandomKey{seed}.fold(name));
    // Rows end in padding of various lengths.
    for (int64_t row = 0; row < recipe.data.batch_size; ++row)
      for (int64_t i = 0; i < length; ++i)
        result.data<int32_t>()[row * length + i] =
            i < length - row % 4 ? static_cast<int32_t>(2 + stream.below(94)) : 0;
    return result;
  };
  const auto segments = [](const Tensor& ids) {
    Tensor result = Tensor::empty_on_heap(ids.shape(), DType::i32);
    for (int64_t i = 0; i < ids.numel(); ++i)
      result.data<int32_t>()[i] = ids.data<int32_t>()[i] != 0;
    return result;
  };
  Batch batch;
  batch.encoder_tokens_BL = tokens(recipe.data.input_length, "encoder");
  batch.targets_BT = tokens(recipe.data.target_length, "targets");
  batch.decoder_inputs_BT = tokens(recipe.data.target_length, "decoder");
  batch.encoder_segments_BL = segments(batch.encoder_tokens_BL);
  batch.decoder_segments_BT = segments(batch.targets_BT);
  for (int32_t id : batch.encoder_tokens_BL.span<int32_t>()) batch.num_input_tokens += id != 0;
  for (int32_t id : batch.targets_BT.span<int32_t>()) batch.num_target_tokens += id != 0;
  return batch;
}

struct Trained {
  std::vector<double> losses, norms;
  std::vector<NamedTensor> weights;  // on the host, at the end
  bool is_recorded = false;
};

Trained train(const Recipe& recipe, Device device, int64_t steps) {
  StepRunner runner(recipe, device, ParameterStore::Mode::initialized);
  Trained result;
  for (int64_t step = 0; step < steps; ++step) {
    const Batch batch = random_batch(recipe, static_cast<uint64_t>(step % 3));
    const auto [losses, norm] = runner.compute(batch, step);
    // AdamW's updates are as large as the rate, Adafactor's relative to the weight.
    runner.update(recipe.optimizer.kind() == "adamw" ? 0.003 : 0.05, step, norm);
    runner.finish();
    result.losses.push_back(losses.total_loss);
    result.norms.push_back(norm);
  }
  result.is_recorded = runner.is_recorded();
  for (const Parameter& parameter : runner.parameters())
    result.weights.push_back({parameter.name, parameter.value.value().on(Device::cpu)});
  return result;
}

void require_near(const std::vector<double>& actual, const std::vector<double>& expected,
                  double tolerance) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    INFO("step " << i);
    CHECK(actual[i] == Approx(expected[i]).epsilon(tolerance));
  }
}

void require_same_bytes(const Trained& a, const Trained& b) {
  CHECK(a.losses == b.losses);
  CHECK(a.norms == b.norms);
  for (size_t i = 0; i < a.weights.size(); ++i) {
    INFO(a.weights[i].name);
    require_same_bits(a.weights[i].tensor, b.weights[i].tensor);
  }
}

// Emulated, and real where one answers.
std::vector<Device> devices() {
  std::vector<Device> all = {Device::emu};
  if (has_kernels(kernel_table<DeviceMemoryKernels>, Device::cuda) && is_usable(Device::cuda))
    all.push_back(Device::cuda);
  return all;
}

}  // namespace

TEST_CASE("ten steps on a GPU have the CPU's losses", "[train][cuda]") {
  const std::pair<const char*, void (*)(Recipe&)> cases[] = {
      {"dense", [](Recipe& r) { r.moe.encoder_sparse_layers = r.moe.decoder_sparse_layers = {}; }},
      {"Switch", [](Recipe&) {}},
      {"GEGLU, dropout, two micro-batches, untied",
       [](Recipe& r) {
         r.model.activation = "geglu";
         r.model.dropout = 0.1;
         r.model.tied_embeddings = false;
         r.train.accumulate = 2;
       }},
      {"top-2, surest first, AdamW, extra feed-forward", [](Recipe& r) {
         r.moe.router = Choice<Router>("batch_prioritized");
         r.moe.extra_feed_forward = "after";
         r.moe.resolve();
         r.optimizer = Choice<Optimizer>("adamw");
       }}};
  for (const auto& [name, change] : cases) {
    INFO(name);
    Recipe recipe = tiny_recipe();
    change(recipe);
    const Trained cpu = train(recipe, Device::cpu, 10);
    for (Device device : devices()) {
      INFO(name_of(device));
      const Trained there = train(recipe, device, 10);
      require_near(there.losses, cpu.losses, 1e-4);
      require_near(there.norms, cpu.norms, 1e-3);
      CHECK(there.is_recorded);
    }
  }
}

TEST_CASE("bf16 steps on a GPU have the CPU's losses as closely as bf16 allows", "[train][cuda]") {
  Recipe recipe = tiny_recipe("precision: {compute: bf16}");
  recipe.model.d_kv = 64;  // a width that fused attention has
  recipe.model.dropout = 0.1;
  const Trained cpu = train(recipe, Device::cpu, 4);
  for (Device device : devices()) {
    for (const char* attention : {"materialised", "fused"}) {
      INFO(attention << " attention on " << name_of(device));
      recipe.cuda.attention = attention;
      require_near(train(recipe, device, 4).losses, cpu.losses, 5e-3);
    }
  }
}

TEST_CASE("a GPU gives the same bytes twice, and as graphs", "[train][cuda]") {
  Recipe recipe = tiny_recipe("precision: {compute: bf16}");
  recipe.model.dropout = 0.1;
  for (Device device : devices()) {
    INFO(name_of(device));
    const Trained first = train(recipe, device, 5);
    require_same_bytes(train(recipe, device, 5), first);
    recipe.cuda.graphs = "off";
    const Trained eager = train(recipe, device, 5);
    CHECK(first.is_recorded);
    CHECK_FALSE(eager.is_recorded);
    require_same_bytes(eager, first);
  }
}

}  // namespace stmoe::test
