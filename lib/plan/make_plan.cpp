// SPDX-License-Identifier: Apache-2.0
#include "lib/plan/plan.h"
#include "lib/train/vocabulary_size.h"

namespace stmoe {
namespace {

// The least time of an update: everything that it computes at the peak of the products, or all
// bytes that its ops move at the memory's speed, whichever takes longer. Recomputation computes the
// blocks' forward pass once more (the whole forward pass, but for the logits: counted in full).
void bound_step_time(Plan& plan) {
  const double passes = plan.is_recomputed ? 4 : 3;
  const double flops = passes * plan.forward_flops * static_cast<double>(plan.sequences);
  const double arithmetic = flops / plan.machine.speed.product_flops_per_second;
  const double memory = plan.step.traffic / plan.machine.speed.memory_bytes_per_second;
  plan.step_seconds = std::max(arithmetic, memory);
  plan.limited_by = arithmetic >= memory ? "arithmetic" : "memory bandwidth";
}

}  // namespace

Plan make_plan(const Recipe& original, const Machine& machine) {
  Recipe recipe = with_vocabulary_size(original, "--plan");
  Plan plan;
  plan.sizes = model_sizes(recipe.model, recipe.moe);
  plan.lengths = {recipe.data.input_length, recipe.data.resolved_target_length()};
  plan.sequences = recipe.data.batch_size;
  plan.forward_flops = forward_flops_per_sequence(recipe.model, recipe.moe, plan.lengths);
  plan.is_recomputed = recipe.model.recompute == "block";
  plan.compute = recipe.precision.compute;
  plan.step = plan_step(recipe, machine.device);
  plan.machine = machine;
  bound_step_time(plan);
  if (!plan.fits()) plan.suggestions = suggest_changes(recipe, machine);
  if (!plan.is_recomputed) recipe.model.recompute = "block";
  plan.recomputed = plan.is_recomputed ? plan.step : plan_step(recipe, machine.device);
  return plan;
}

}  // namespace stmoe
