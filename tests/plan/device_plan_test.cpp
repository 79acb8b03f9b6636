// SPDX-License-Identifier: Apache-2.0
// Plans for a GPU that is not here.
#include <cmath>

#include <catch2/catch.hpp>

#include "lib/ops/device_peak.h"
#include "lib/plan/plan.h"
#include "lib/train/step_runner.h"

namespace stmoe::test {
namespace {

struct Step {
  const char* recipe;
  int64_t sequences;
};

Recipe bf16_recipe(const Step& step) {
  return load_recipe(Path(STMOE_SOURCE_DIR) / "recipes/pretrain" / step.recipe,
                     {"model.vocabulary_size=32128", "precision.compute=bf16", "train.accumulate=1",
                      format("data.batch_size={}", step.sequences)});
}

// Rows of all experts of a layer with the tokens of all groups of `length`, padded for products.
double expert_rows(const Recipe& recipe, double sequences, double length) {
  const double experts = static_cast<double>(recipe.moe.num_experts);
  const double per_group = recipe.moe.groups == "sequence"
                               ? static_cast<double>(recipe.moe.sequences_per_group) * length
                               : sequences * length;
  const double slots = sequences * length / per_group *
                       std::floor(recipe.moe.train_capacity_factor * per_group / experts);
  const double multiple = slots > 512 ? 128 : 64;
  return experts * std::ceil(slots / multiple) * multiple;
}

// What the backward pass needs of a stack, in bytes: bf16 but for what is marked. `source` tokens
// are those of cross-attention's keys, 0 in the encoder. Worked by hand from the formulas of the
// layers: a sublayer keeps its sum and its normed input, attention q, k, v and its result, a
// feed-forward layer its hidden values (with a gate both branches and their product), a sparse
// layer also the rows in front of and behind the experts, and of the router the input in f32 and
// the probabilities in f32.
double saved_bytes(const Recipe& recipe, double sequences, double length, double layers,
                   double sparse, double source) {
  const ModelConfig& m = recipe.model;
  const double tokens = sequences * length, d = static_cast<double>(m.d_model),
               i = static_cast<double>(m.num_heads * m.d_kv), f = static_cast<double>(m.d_ff),
               hidden = m.activation == "relu" ? f : 3 * f;
  const bool has_extra = recipe.moe.extra_feed_forward != "none";
  const double sublayers = layers * (source > 0 ? 3 : 2) + (has_extra ? sparse : 0) + 1;
  double bytes = sublayers * 2 * 2 * tokens * d;
  bytes += layers * 2 * 4 * tokens * i;
  if (source > 0) bytes += layers * 2 * (2 * tokens + 2 * source) * i;
  bytes += (layers - (has_extra ? 0 : sparse)) * 2 * tokens * hidden;
  const double rows = expert_rows(recipe, sequences, length);
  bytes += sparse * 2 * rows * (hidden + 2 * d);
  return bytes + sparse * 4 * tokens * (d + static_cast<double>(recipe.moe.num_experts));
}

double step_by_hand(const Recipe& recipe) {
  const auto size = [](const std::vector<int64_t>& layers) {
    return static_cast<double>(layers.size());
  };
  const auto b = static_cast<double>(recipe.data.batch_size);
  const auto inputs = static_cast<double>(recipe.data.input_length);
  const auto targets = static_cast<double>(recipe.data.resolved_target_length());
  return saved_bytes(recipe, b, inputs, static_cast<double>(recipe.model.encoder_layers),
                     size(recipe.moe.encoder_sparse_layers), 0) +
         saved_bytes(recipe, b, targets, static_cast<double>(recipe.model.decoder_layers),
                     size(recipe.moe.decoder_sparse_layers), b * inputs);
}

}  // namespace

TEST_CASE("a GPU's step is planned as one works it out by hand, and fits an H200", "[plan][cuda]") {
  for (const Step& one : {Step{"switch-base-128.yaml", 256}, Step{"st-moe-l.yaml", 96}}) {
    INFO(one.recipe);
    const Recipe recipe = bf16_recipe(one);
    const PlannedStep step = plan_step(recipe, Device::cuda);
    // The peak is near the loss, where all of it is kept and gradients begin.
    const double by_hand = step_by_hand(recipe);
    CAPTURE(static_cast<double>(step.step_alive) / by_hand);
    CHECK(static_cast<double>(step.step_alive) == Approx(by_hand).epsilon(0.05));
    CHECK(static_cast<double>(step.step) < 1.1 * static_cast<double>(step.step_alive));
    CHECK(step.total() < named_machine("h200", DType::bf16).memory_bytes);
  }
}

TEST_CASE("a GPU's planned step takes the bytes that emulated steps take", "[plan][cuda]") {
  for (const char* compute : {"f32", "bf16"}) {
    INFO(compute);
    const Recipe recipe = parse_config<Recipe>(
        format("model: {{d_model: 32, d_ff: 48, d_kv: 16, num_heads: 2, encoder_layers: 2, "
               "decoder_layers: 2, vocabulary_size: 96, dropout: 0.1}}\n"
               "moe: {{num_experts: 4, encoder_sparse_layers: [1], decoder_sparse_layers: [1]}}\n"
               "data: {{input_length: 16, target_length: 8, batch_size: 4}}\n"
               "train: {{accumulate: 2}}\nprecision: {{compute: {}}}\n",
               compute),
        "recipe");
    const PlannedStep planned = plan_step(recipe, Device::cuda);
    StepRunner runner(recipe, Device::emu, ParameterStore::Mode::initialized);
    const auto tokens = [](int64_t length) { return Tensor::full({4, length}, DType::i32, 5.0); };
    const Batch batch = {tokens(16), tokens(16), tokens(8), tokens(8), tokens(8), 64, 32};
    for (int64_t step = 0; step < 3; ++step) {
      const double norm = runner.compute(batch, step).norm;
      runner.update(0.01, step, norm);
      runner.finish();
    }
    const MemoryPlan real = runner.memory_plan();
    CHECK(planned.weights == real.weights);
    CHECK(planned.optimizer == real.optimizer);
    CHECK(planned.step == real.step);
  }
}

TEST_CASE("GPUs to plan for are known by name", "[plan][cuda]") {
  const Machine machine = named_machine("h200", DType::bf16);
  CHECK(machine.device == Device::cuda);
  CHECK(machine.memory_bytes == int64_t{139} << 30);
  CHECK(machine.speed.product_flops_per_second == 989e12);
  CHECK(named_machine("a100-40gb", DType::f32).speed.product_flops_per_second == 19.5e12);
  CHECK_THROWS_WITH(named_machine("h20", DType::f32), Catch::Contains("h200"));
}

TEST_CASE("a device's speed is measured by products and copies on it", "[plan][cuda]") {
  CHECK(measure_device_product_peak(DType::bf16, 0.01, Device::emu) > 0);
  CHECK(measure_device_memory_bandwidth(0.01, Device::emu) > 0);
}

}  // namespace stmoe::test
