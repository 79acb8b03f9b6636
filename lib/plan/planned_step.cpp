// SPDX-License-Identifier: Apache-2.0
#include "lib/plan/planned_step.h"

#include <algorithm>

#include "lib/base/log.h"
#include "lib/base/profile.h"
#include "lib/base/threads.h"
#include "lib/ops/scratch.h"
#include "lib/optim/gradients.h"
#include "lib/train/memory_plan.h"
#include "lib/train/train_step.h"

namespace stmoe {
namespace {

// From the third micro-batch on all are alike: each adds to the gradients that are there and leaves
// nothing else. So many are looked at.
constexpr int64_t kMostMicroBatches = 3;

// On a GPU a step's batch is a part of the step.
Batch planned_batch(const Recipe& recipe, Device device) {
  const int64_t rows = recipe.data.batch_size;
  const auto tokens = [&](int64_t length) {
    const Shape shape = {rows, length};
    return is_host_memory(device) ? Tensor::persistent(shape, DType::i32, Device::plan)
                                  : Tensor::empty(shape, DType::i32, Device::plan);
  };
  const int64_t inputs = recipe.data.input_length, targets = recipe.data.resolved_target_length();
  Batch batch;
  batch.encoder_tokens_BL = tokens(inputs);
  batch.encoder_segments_BL = tokens(inputs);
  batch.decoder_inputs_BT = tokens(targets);
  batch.decoder_segments_BT = tokens(targets);
  batch.targets_BT = tokens(targets);
  batch.num_input_tokens = rows * inputs;
  batch.num_target_tokens = rows * targets;
  return batch;
}

double bytes_moved(const Profile& profile) {
  double total = 0;
  for (const OpTime& op : profile.ops) total += op.forward.work.bytes + op.backward.work.bytes;
  return total;
}

int64_t gradient_bytes(const ParameterList& parameters) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters)
    if (parameter.value.grad().defined())
      total += static_cast<int64_t>(parameter.value.grad().bytes());
  return total;
}

// Calls body() and returns the bytes that its ops move.
template <class Body>
double traffic_of(Body&& body) {
  start_profile();
  {
    const StepScope scope;
    body();
  }
  return bytes_moved(stop_profile());
}

bool evaluates(const Recipe& recipe) {
  return !recipe.data.validation.empty() && recipe.train.evaluate_every > 0;
}

}  // namespace

PlannedStep plan_step(const Recipe& original, Device device) {
  Recipe recipe = original;
  recipe.train.accumulate = std::min(original.train.accumulate, kMostMicroBatches);
  recipe.data.batch_size =
      original.data.batch_size / original.train.accumulate * recipe.train.accumulate;
  const PlanScope planning(device);
  ParameterStore store(RandomKey{}, DType::f32, ParameterStore::Mode::zeroed, Device::plan,
                       parse_weight_storage(recipe.precision.weights));
  const ParameterList& parameters = store.parameters();
  const EncoderDecoder model(recipe.model, recipe.moe, store);
  const auto optimizer = make_optimizer(recipe.optimizer, parameters);
  keep_rounded_weights(recipe, parameters);
  PlannedStep result;
  StepArena arena;
  release_scratch();
  {
    ArenaStep step(arena, "train");
    const double of_parts =
        traffic_of([&] { accumulate_gradients(model, recipe, planned_batch(recipe, device), 0); });
    result.gradients = gradient_bytes(parameters);
    const double of_update = traffic_of([&] {
      global_gradient_norm(parameters);
      optimizer->update(parameters, 0, 0);
    });
    result.traffic = of_parts * static_cast<double>(original.train.accumulate) /
                         static_cast<double>(recipe.train.accumulate) +
                     of_update;
    clear_gradients(parameters);
    step.finish();
    log_debug("[plan] {}", alive_table(arena));
  }
  if (evaluates(recipe)) {
    ArenaStep step(arena, "evaluate");
    held_out_losses(model, recipe, planned_batch(recipe, device));
    step.finish();
  }
  const MemoryPlan memory = plan_memory(0, parameters, *optimizer, arena);
  result.weights = memory.weights;
  result.optimizer = memory.optimizer;
  result.step = memory.step;
  result.step_alive = memory.step_lower_bound;
  if (is_host_memory(device))
    result.scratch = static_cast<int64_t>(release_scratch()) * num_threads();
  result.program = !is_host_memory(device)     ? kContextBytes
                   : recipe.data.train.empty() ? kProgramBytes
                                               : kProgramBytes + kCorpusBytes;
  return result;
}

}  // namespace stmoe
