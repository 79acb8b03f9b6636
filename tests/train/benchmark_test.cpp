// SPDX-License-Identifier: Apache-2.0
// What a benchmark hands to other programs: the weights and tokens that its first step starts from.
// The loss is made again from the file alone.
#include "lib/train/benchmark.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/hdf5/file.h"
#include "lib/train/train_step.h"
#include "tests/support/close.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

Recipe tiny_recipe() {
  return parse_config<Recipe>(
      "model: {d_model: 16, d_ff: 24, d_kv: 4, num_heads: 2, encoder_layers: 2, decoder_layers: 2, "
      "vocabulary_size: 96, dropout: 0.0}\n"
      "moe: {num_experts: 4, encoder_sparse_layers: [1], decoder_sparse_layers: [1]}\n"
      "data: {input_length: 12, target_length: 5, batch_size: 3}\n"
      "train: {seed: 5}\n",
      "recipe.yaml");
}

Tensor read(const Hdf5File& file, const std::string& name) {
  const Hdf5Dataset dataset = file.dataset(name);
  const Tensor tensor =
      Tensor::persistent(Shape(dataset.shape()), parse_dtype(name_of(dataset.type())));
  dataset.read(tensor);
  return tensor;
}

TEST_CASE("a benchmark's file gives its first loss again", "[train][benchmark]") {
  const TemporaryFolder directory;
  const BenchmarkResult result =
      run_benchmark(tiny_recipe(), {.steps = 1, .output = directory.path() / "new" / "folder"});
  const Hdf5File file = Hdf5File::open(directory.path() / "new" / "folder" / "benchmark.h5");
  const Recipe recipe = parse_config<Recipe>(file.read_text("recipe"), "benchmark.h5");
  REQUIRE(recipe.model.vocabulary_size == 96);

  ParameterStore store(RandomKey{99});  // other values, all to be replaced
  const EncoderDecoder model(recipe.model, recipe.moe, store);
  REQUIRE(file.group("weights").datasets().size() == store.parameters().size());
  for (const Parameter& parameter : store.parameters())
    parameter.value.value().copy_from(read(file, "weights/" + parameter.name));
  Batch batch;
  batch.encoder_tokens_BL = read(file, "batch/encoder_tokens");
  batch.decoder_inputs_BT = read(file, "batch/decoder_inputs");
  batch.targets_BT = read(file, "batch/targets");
  REQUIRE(batch.encoder_tokens_BL.shape() == Shape{3, 12});
  REQUIRE(batch.targets_BT.shape() == Shape{3, 5});
  batch.num_target_tokens = 15;
  const StepLosses losses = accumulate_gradients(model, recipe, batch, 0);
  require_close(losses.cross_entropy / 15, result.first_loss, {1e-6, 1e-6});
  REQUIRE(nlohmann::json::parse(benchmark_json(result))["first_loss"] == result.first_loss);
}

TEST_CASE("a benchmark without an output writes no file", "[train][benchmark]") {
  const TemporaryFolder directory;
  const Path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  run_benchmark(tiny_recipe(), {.steps = 1});
  std::filesystem::current_path(before);
  REQUIRE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace stmoe::test
