// SPDX-License-Identifier: Apache-2.0
// Training with weights that are not stored as f32, and what a checkpoint makes of them.
#include <catch2/catch.hpp>

#include "lib/checkpoint/checkpoint.h"
#include "lib/train/step_runner.h"
#include "tests/support/close.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

Recipe recipe_with(const std::string& weights, bool is_tied) {
  Recipe recipe;
  recipe.model.d_model = 32;
  recipe.model.d_ff = 48;
  recipe.model.d_kv = 16;
  recipe.model.num_heads = 2;
  recipe.model.encoder_layers = recipe.model.decoder_layers = 2;
  recipe.model.vocabulary_size = 96;
  recipe.model.tied_embeddings = is_tied;
  recipe.moe.num_experts = 4;
  recipe.moe.encoder_sparse_layers = recipe.moe.decoder_sparse_layers = {1};
  recipe.moe.resolve();
  recipe.data.batch_size = 4;
  recipe.precision.compute = "bf16";
  recipe.precision.weights = weights;
  return recipe;
}

Batch batch_of(uint64_t seed) {
  RandomStream random(RandomKey{seed});
  const auto tokens = [&](int64_t length) {
    const Tensor result = Tensor::persistent({4, length}, DType::i32);
    for (int32_t& token : result.span<int32_t>())
      token = static_cast<int32_t>(2 + random.below(90));
    return result;
  };
  Batch batch;
  batch.encoder_tokens_BL = tokens(12);
  batch.decoder_inputs_BT = tokens(7);
  batch.targets_BT = tokens(7);
  batch.encoder_segments_BL = Tensor::full({4, 12}, DType::i32, 1);
  batch.decoder_segments_BT = Tensor::full({4, 7}, DType::i32, 1);
  batch.num_input_tokens = 48;
  batch.num_target_tokens = 28;
  return batch;
}

// Losses of updates `first` to `last`.
std::vector<double> train(StepRunner& runner, int64_t first, int64_t last) {
  std::vector<double> losses;
  for (int64_t step = first; step < last; ++step) {
    const auto gradients = runner.compute(batch_of(static_cast<uint64_t>(step % 3)), step);
    losses.push_back(gradients.losses.total_loss);
    runner.update(0.05, step, gradients.norm);
    runner.finish();
  }
  return losses;
}

CheckpointContents contents_of(const StepRunner& runner) {
  CheckpointContents contents;
  contents.step = 1;
  for (const Parameter& parameter : runner.parameters())
    contents.weights.push_back(named_weight(parameter));
  contents.optimizer = runner.optimizer().state();
  contents.recipe_yaml = contents.state_json = contents.vocabulary_hash = "x";
  return contents;
}

}  // namespace

TEST_CASE("training with stored weights follows training with f32 ones", "[train][weights]") {
  for (bool is_tied : {true, false}) {
    StepRunner plain(recipe_with("f32", is_tied), Device::cpu, ParameterStore::Mode::initialized);
    const std::vector<double> expected = train(plain, 0, 12);
    CHECK(expected.back() < expected.front());
    for (const char* storage : {"split", "bf16_stochastic"}) {
      INFO(storage);
      StepRunner runner(recipe_with(storage, is_tied), Device::cpu,
                        ParameterStore::Mode::initialized);
      const std::vector<double> losses = train(runner, 0, 12);
      for (size_t i = 0; i < losses.size(); ++i)
        require_close(losses[i], expected[i],
                      {0, std::string_view(storage) == "split" ? 0.03 : 0.1});
      int64_t stored = 0;
      for (const Parameter& parameter : runner.parameters()) stored += !parameter.value.is_plain();
      CHECK(stored > 10);
      CHECK(runner.memory_plan().weights < plain.memory_plan().weights + 1);
    }
  }
}

TEST_CASE("a run goes on exactly from its checkpoint, and in another storage from the same weights",
          "[train][weights]") {
  const TemporaryFolder folder;
  for (const char* storage : {"split", "bf16_stochastic"}) {
    INFO(storage);
    StepRunner whole(recipe_with(storage, true), Device::cpu, ParameterStore::Mode::initialized);
    train(whole, 0, 3);
    const Path path = save_checkpoint(folder.path() / storage, contents_of(whole));
    const Checkpoint checkpoint = Checkpoint::open(path);
    const std::vector<double> expected = train(whole, 3, 6);
    for (const char* other : {"f32", storage}) {
      INFO("into " << other);
      StepRunner resumed(recipe_with(other, true), Device::cpu, ParameterStore::Mode::zeroed);
      checkpoint.read_weights(contents_of(resumed).weights);
      checkpoint.read_optimizer(resumed.optimizer().state());
      const std::vector<double> losses = train(resumed, 3, 6);
      if (std::string_view(other) == storage)
        CHECK(losses == expected);
      else
        require_close(losses[0], expected[0], {0, 1e-3});
    }
  }
}

TEST_CASE("stored weights train on the emulated device", "[train][weights][gpu]") {
  for (const char* storage : {"split", "bf16_stochastic"}) {
    INFO(storage);
    StepRunner here(recipe_with(storage, true), Device::cpu, ParameterStore::Mode::initialized);
    StepRunner there(recipe_with(storage, true), Device::emu, ParameterStore::Mode::initialized);
    const std::vector<double> expected = train(here, 0, 3), losses = train(there, 0, 3);
    for (size_t i = 0; i < losses.size(); ++i) require_close(losses[i], expected[i], {0, 0.02});
  }
}

}  // namespace stmoe::test
