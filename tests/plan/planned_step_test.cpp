// SPDX-License-Identifier: Apache-2.0
// A step on Device::plan takes exactly what real steps of the same recipe take: arena, weights,
// gradients, optimizer state, and the scratch of a thread.
#include "lib/plan/planned_step.h"

#include <fstream>
#include <sstream>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "lib/moe/router.h"
#include "lib/ops/product_tuning.h"
#include "lib/ops/scratch.h"
#include "lib/optim/gradients.h"
#include "lib/train/memory_plan.h"
#include "lib/train/train_step.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

// `changes`: lines of path.to.key=value, as --set.
Recipe tiny_recipe(const std::string& changes) {
  const TemporaryFolder folder;
  const Path file = folder.path() / "recipe.yaml";
  std::ofstream(file) << "model: {d_model: 16, d_ff: 24, d_kv: 4, num_heads: 2, encoder_layers: 2, "
                         "decoder_layers: 2, vocabulary_size: 96}\n"
                         "data: {input_length: 12, target_length: 5, batch_size: 8}\n";
  std::vector<std::string> overrides;
  std::istringstream lines(changes);
  for (std::string line; std::getline(lines, line);) overrides.push_back(line);
  return load_recipe(file, overrides);
}

Tensor random_tokens(const Recipe& recipe, int64_t length, RandomKey key) {
  Tensor tokens = Tensor::persistent({recipe.data.batch_size, length}, DType::i32);
  RandomStream stream(key);
  for (int32_t& token : tokens.span<int32_t>())
    token = static_cast<int32_t>(
        2 + stream.below(static_cast<uint64_t>(recipe.model.vocabulary_size - 2)));
  return tokens;
}

Batch random_batch(const Recipe& recipe) {
  const int64_t inputs = recipe.data.input_length, targets = recipe.data.resolved_target_length();
  Batch batch;
  batch.encoder_tokens_BL = random_tokens(recipe, inputs, RandomKey{1});
  batch.targets_BT = random_tokens(recipe, targets, RandomKey{2});
  batch.decoder_inputs_BT = random_tokens(recipe, targets, RandomKey{3});
  batch.encoder_segments_BL = Tensor::full(batch.encoder_tokens_BL.shape(), DType::i32, 1);
  batch.decoder_segments_BT = Tensor::full(batch.targets_BT.shape(), DType::i32, 1);
  batch.num_input_tokens = batch.encoder_tokens_BL.numel();
  batch.num_target_tokens = batch.targets_BT.numel();
  return batch;
}

struct RealSteps {
  MemoryPlan memory;
  int64_t gradients = 0;
};

// Three updates, as Trainer::train_step makes them.
RealSteps run_steps(const Recipe& recipe, bool evaluates = false) {
  release_scratch();
  ParameterStore store(RandomKey{7}, DType::f32, ParameterStore::Mode::initialized, Device::cpu,
                       parse_weight_storage(recipe.precision.weights));
  const EncoderDecoder model(recipe.model, recipe.moe, store);
  const auto optimizer = make_optimizer(recipe.optimizer, store.parameters());
  keep_rounded_weights(recipe, store.parameters());
  const Batch batch = random_batch(recipe);
  StepArena arena;
  RealSteps result;
  for (int64_t step = 0; step < 3; ++step) {
    ArenaStep open(arena, "train");
    accumulate_gradients(model, recipe, batch, step);
    result.gradients = 0;
    for (const Parameter& parameter : store.parameters())
      result.gradients += static_cast<int64_t>(parameter.value.grad().bytes());
    global_gradient_norm(store.parameters());
    optimizer->update(store.parameters(), 0.01, step);
    clear_gradients(store.parameters());
    open.finish();
  }
  if (evaluates) {
    ArenaStep open(arena, "evaluate");
    held_out_losses(model, recipe, batch);
    open.finish();
  }
  result.memory = plan_memory(0, store.parameters(), *optimizer, arena);
  return result;
}

void require_same(const Recipe& recipe, bool evaluates = false) {
  const PlannedStep planned = plan_step(recipe);
  const RealSteps real = run_steps(recipe, evaluates);
  CHECK(planned.weights == real.memory.weights);
  CHECK(planned.optimizer == real.memory.optimizer);
  CHECK(planned.gradients == real.gradients);
  CHECK(planned.step == real.memory.step);
  CHECK(planned.step_alive == real.memory.step_lower_bound);
  CHECK(planned.activations() > 0);
}

constexpr const char* kSparse =
    "moe.num_experts=4\nmoe.encoder_sparse_layers=[1]\nmoe.decoder_sparse_layers=[1]";

std::string sparse(const std::string& more) { return format("{}\n{}", kSparse, more); }

}  // namespace

TEST_CASE("a planned step takes the bytes that real steps take", "[plan]") {
  const std::pair<const char*, std::string> cases[] = {
      {"dense", "model.dropout=0.1"},
      {"dense, gated, untied", "model.activation=geglu\nmodel.tied_embeddings=false"},
      {"dense, recomputed", "model.recompute=block"},
      {"Switch", kSparse},
      {"Switch, dropout", sparse("model.dropout=0.1\nmodel.dropout_broadcast=none")},
      {"Switch, groups by sequence", sparse("moe.groups=sequence")},
      {"top-2", sparse("moe.router.k=2\nmoe.train_capacity_factor=2.0")},
      {"Switch, recomputed", sparse("model.recompute=block")},
      {"Switch, two micro-batches", sparse("train.accumulate=2")},
      {"Switch, eight micro-batches", sparse("train.accumulate=8")},
      {"Switch, bf16", sparse("precision.compute=bf16")},
      {"Switch, split weights",
       sparse("precision.compute=bf16\nprecision.weights=split\ntrain.accumulate=2")},
      {"Switch, bf16 weights", sparse("precision.compute=bf16\nprecision.weights=bf16_stochastic")},
      {"Switch, bf16, micro-batches, recomputed",
       sparse("precision.compute=bf16\ntrain.accumulate=4\nmodel.recompute=block")},
      {"Switch, gated, AdamW", sparse("model.activation=geglu\noptimizer.kind=adamw")},
      {"Switch, factored", sparse("optimizer.min_dim_to_factor=1\noptimizer.beta1=0.9")},
      {"Switch, factored as a stack", sparse("optimizer.min_dim_to_factor=1\n"
                                             "optimizer.factor_scope=tensor")}};
  for (const auto& [name, changes] : cases) {
    INFO(name);
    require_same(tiny_recipe(changes));
  }
}

TEST_CASE("an evaluation takes no more than a step, in micro-batches as well", "[plan]") {
  for (const char* parts : {"1", "64"}) {
    INFO(parts << " micro-batches");
    Recipe recipe = tiny_recipe(sparse(
        format("train.accumulate={}\ndata.batch_size=64\ndata.validation=held_out.h5", parts)));
    const int64_t with = plan_step(recipe).step;
    require_same(recipe, true);
    recipe.train.evaluate_every = 0;
    CHECK(plan_step(recipe).step == with);
  }
}

TEST_CASE("every router can be planned, and takes the bytes that it takes", "[plan][router]") {
  for (const std::string& kind : Registry<Router>::names()) {
    INFO(kind);
    Recipe recipe = tiny_recipe("moe.num_experts=4\nmoe.encoder_sparse_layers=[1]");
    recipe.moe.router = Choice<Router>(kind);
    require_same(recipe);
  }
}

TEST_CASE("the scratch of a thread is what its kernels take", "[plan]") {
  const int before = num_threads();
  set_num_threads(1);
  for (const char* compute : {"f32", "bf16"}) {
    INFO(compute);
    Recipe recipe = tiny_recipe(
        format("precision.compute={}\nmodel.d_model=128\nmodel.d_ff=768\n"
               "model.d_kv=64\ndata.input_length=600\ndata.target_length=134\ndata.batch_size=2",
               compute));
    const PlannedStep planned = plan_step(recipe);
    run_steps(recipe);
    CHECK(planned.scratch == static_cast<int64_t>(release_scratch()));
    CHECK(planned.scratch > 0);
  }
  set_num_threads(before);
}

TEST_CASE("a plan of a model that no machine holds takes next to nothing", "[plan]") {
  const int64_t before = peak_resident_bytes();
  const Recipe recipe = tiny_recipe(
      sparse("model.d_model=8192\nmodel.d_ff=32768\nmodel.d_kv=128\nmodel.num_heads=64\n"
             "model.vocabulary_size=32128\nmoe.num_experts=512\ndata.input_length=1024\n"
             "data.target_length=256\ndata.batch_size=256\nprecision.compute=bf16"));
  const PlannedStep planned = plan_step(recipe);
  CHECK(planned.weights > int64_t{1} << 40);
  CHECK(planned.step > planned.weights);
  CHECK(planned.traffic > static_cast<double>(planned.weights));
  CHECK(peak_resident_bytes() - before < int64_t{64} << 20);
}

TEST_CASE("the products of a step on a GPU are known without one", "[plan]") {
  const Recipe recipe = tiny_recipe("precision.compute=bf16");
  const auto products = record_products([&] { plan_step(recipe, Device::cuda); });
  // x [96, 16] of the encoder times wi [16, 24]: forward once, for dx and for dw in the backward
  // pass.
  const auto count = [&](int64_t m, int64_t k, int64_t n, DType result) {
    int64_t sum = 0;
    for (const RecordedProduct& one : products)
      if (one.product.c.rows == m && one.product.a.cols == k && one.product.c.cols == n &&
          one.product.c.dtype == result)
        sum += one.count;
    return sum;
  };
  CHECK(count(96, 16, 24, DType::bf16) > 0);
  CHECK(count(96, 24, 16, DType::bf16) > 0);
  CHECK(count(16, 96, 24, DType::f32) > 0);
  CHECK(count(24, 96, 16, DType::f32) > 0);
  CHECK(products.size() < 80);
}

}  // namespace stmoe::test
