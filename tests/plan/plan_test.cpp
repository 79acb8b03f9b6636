// SPDX-License-Identifier: Apache-2.0
// What a plan says of a recipe: figures worked by hand, the keys of its JSON, and changes that do
// what they promise.
#include "lib/plan/plan.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace stmoe::test {
namespace {

using Json = nlohmann::ordered_json;

Recipe small_recipe() {
  Recipe recipe;
  recipe.model.d_model = 64;
  recipe.model.d_ff = 256;
  recipe.model.d_kv = 16;
  recipe.model.num_heads = 4;
  recipe.model.encoder_layers = recipe.model.decoder_layers = 2;
  recipe.model.vocabulary_size = 1024;
  recipe.moe.num_experts = 8;
  recipe.moe.encoder_sparse_layers = recipe.moe.decoder_sparse_layers = {1};
  recipe.data.input_length = 128;
  recipe.data.target_length = 32;
  recipe.data.batch_size = 64;
  recipe.moe.resolve();
  return recipe;
}

// This machine, as fast as it is, with so many bytes of memory; 0: unknown.
Machine with_memory(int64_t bytes) {
  static const Machine machine = this_machine(DType::f32);
  Machine result = machine;
  result.memory_bytes = bytes;
  return result;
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

// The total that the recipe with a suggestion's changes is planned to take.
int64_t total_with(Recipe recipe, const Suggestion& suggestion) {
  for (const auto& [key, value] : suggestion.changes) {
    if (key == "train.accumulate")
      recipe.train.accumulate = std::stoll(value);
    else if (key == "data.batch_size")
      recipe.data.batch_size = std::stoll(value);
    else if (key == "moe.num_experts")
      recipe.moe.num_experts = std::stoll(value);
    else if (key == "model.recompute")
      recipe.model.recompute = value;
    else if (key == "precision.compute")
      recipe.precision.compute = value;
    else if (key == "optimizer.kind")
      recipe.optimizer = Choice<Optimizer>(value);
    else
      FAIL("a key that the test does not know: " << key);
  }
  return make_plan(recipe, with_memory(0)).total();
}

}  // namespace

TEST_CASE("a plan's figures are those of the model", "[plan]") {
  const Recipe recipe = small_recipe();
  const Plan plan = make_plan(recipe, with_memory(0));
  // Width 64, inner width 64, 4 sequences' worth of nothing else: by the formula of flops.h.
  const double encoder = 2 * (8.0 * 128 * 64 * 64 + 4.0 * 128 * 128 * 64);
  const double decoder = 2 * (8.0 * 32 * 64 * 64 + 4.0 * 32 * 32 * 64 + 4.0 * 32 * 64 * 64 +
                              4.0 * 128 * 64 * 64 + 4.0 * 32 * 128 * 64);
  const double feed_forward = 2 * (2.0 * (128 + 32) * 2 * 64 * 256);
  const double router = 2.0 * (128 + 32) * 64 * 8, logits = 2.0 * 32 * 1024 * 64;
  CHECK(plan.forward_flops == encoder + decoder + feed_forward + router + logits);
  CHECK(plan.sizes.expert == 2 * 8 * 2 * 64 * 256);
  CHECK(plan.step.weights == 4 * plan.sizes.total);
  CHECK(plan.step.gradients == 4 * plan.sizes.total);
  CHECK(plan.total() == plan.step.weights + plan.step.gradients + plan.step.optimizer +
                            plan.step.activations() + plan.step.scratch + kProgramBytes);
  CHECK(plan.recomputed.activations() < plan.step.activations());
  Recipe with_corpus = recipe;
  with_corpus.data.train.emplace_back();
  CHECK(plan_step(with_corpus).total() == plan.total() + kCorpusBytes);
  CHECK(plan.suggestions.empty());
  CHECK(plan.fits());
}

TEST_CASE("the least time of a step is the longer of arithmetic and memory", "[plan]") {
  Recipe recipe = small_recipe();
  const Plan plan = make_plan(recipe, with_memory(0));
  const double arithmetic =
      64 * 3 * plan.forward_flops / plan.machine.speed.product_flops_per_second;
  const double memory = plan.step.traffic / plan.machine.speed.memory_bytes_per_second;
  CHECK(plan.step_seconds == Approx(std::max(arithmetic, memory)));
  CHECK(std::string(plan.limited_by) == (arithmetic >= memory ? "arithmetic" : "memory bandwidth"));
}

TEST_CASE("a plan's JSON has the contract's keys first", "[plan]") {
  const Json json = Json::parse(plan_json(make_plan(small_recipe(), with_memory(1))));
  const auto all = keys(json);
  CHECK(std::vector<std::string>(all.begin(), all.begin() + 5) ==
        std::vector<std::string>{"parameters", "flops_per_sequence", "memory_per_rank_bytes",
                                 "step_seconds", "limited_by"});
  CHECK(keys(json["flops_per_sequence"]) == std::vector<std::string>{"forward", "backward"});
  const auto parameters = keys(json["parameters"]), memory = keys(json["memory_per_rank_bytes"]);
  CHECK(std::vector<std::string>(parameters.begin(), parameters.begin() + 6) ==
        std::vector<std::string>{"total", "active_per_token", "dense", "expert", "router",
                                 "embedding"});
  CHECK(std::vector<std::string>(memory.begin(), memory.begin() + 5) ==
        std::vector<std::string>{"weights", "gradients", "optimizer", "activations", "total"});
  CHECK(json["parameters"]["total"] == json["parameters"]["dense"].get<int64_t>() +
                                           json["parameters"]["expert"].get<int64_t>() +
                                           json["parameters"]["router"].get<int64_t>() +
                                           json["parameters"]["embedding"].get<int64_t>());
  const Json& bytes = json["memory_per_rank_bytes"];
  int64_t sum = 0;
  for (const char* kind :
       {"weights", "gradients", "optimizer", "activations", "scratch", "program"})
    sum += bytes[kind].get<int64_t>();
  CHECK(bytes["total"] == sum);
  CHECK(json["fits"] == false);
  CHECK(json["available_bytes"] == 1);
  CHECK(json["ranks"] == 1);
}

TEST_CASE("suggested changes need what they say and fit when they say so", "[plan]") {
  const Recipe recipe = small_recipe();
  const int64_t total = make_plan(recipe, with_memory(0)).total(), available = total * 3 / 4;
  const auto suggestions = suggest_changes(recipe, with_memory(available));
  REQUIRE(suggestions.size() >= 3);
  CHECK(std::ranges::any_of(suggestions, [](const Suggestion& s) { return s.fits; }));
  for (const Suggestion& suggestion : suggestions) {
    INFO(suggestion.changes[0].first << ": " << suggestion.changes[0].second);
    CHECK(suggestion.total == total_with(recipe, suggestion));
    CHECK(suggestion.fits == (suggestion.total <= available));
    CHECK(suggestion.total < total);
  }
  // No more micro-batches than it takes.
  const Suggestion& first = suggestions[0];
  REQUIRE(first.changes[0].first == "train.accumulate");
  const int64_t parts = std::stoll(first.changes[0].second);
  REQUIRE(first.fits);
  if (parts > 2) {
    Recipe fewer = recipe;
    fewer.train.accumulate = parts / 2;
    CHECK(make_plan(fewer, with_memory(0)).total() > available);
  }
}

TEST_CASE("where weights and optimizer alone are too much, the model must change", "[plan]") {
  Recipe recipe = small_recipe();
  recipe.moe.num_experts = 256;
  recipe.optimizer = Choice<Optimizer>("adamw");
  const auto suggestions =
      suggest_changes(recipe, with_memory(kProgramBytes + (int64_t{40} << 20)));
  REQUIRE(suggestions.size() == 2);
  CHECK(suggestions[0].changes.back() ==
        std::pair<std::string, std::string>("optimizer.kind", "adafactor"));
  CHECK_FALSE(suggestions[0].fits);
  CHECK(suggestions[1].changes.back().first == "moe.num_experts");
  CHECK(suggestions[1].fits);
  for (const Suggestion& suggestion : suggestions)
    CHECK(suggestion.total == total_with(recipe, suggestion));
}

TEST_CASE("a plan's table says whether it fits", "[plan]") {
  const Recipe recipe = small_recipe();
  const std::string fits = plan_table(make_plan(recipe, with_memory(int64_t{1} << 40)));
  CHECK_THAT(fits, Catch::Contains("fits in 1048576 MiB") && !Catch::Contains("changes"));
  const std::string small = plan_table(make_plan(recipe, with_memory(kProgramBytes)));
  CHECK_THAT(small, Catch::Contains("does not fit in 24 MiB") && Catch::Contains("changes"));
}

TEST_CASE("a plan without a vocabulary's size says what to add", "[plan]") {
  Recipe recipe = small_recipe();
  recipe.model.vocabulary_size = 0;
  CHECK_THROWS_WITH(make_plan(recipe, with_memory(0)),
                    Catch::Contains("--plan: ") && Catch::Contains("vocabulary_size=32128"));
}

}  // namespace stmoe::test
