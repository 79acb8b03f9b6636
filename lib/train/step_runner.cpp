// SPDX-License-Identifier: Apache-2.0
#include "lib/train/step_runner.h"

#include "lib/optim/gradients.h"

namespace stmoe {
namespace {

RandomKey weights_key(const Recipe& recipe) {
  return RandomKey{static_cast<uint64_t>(recipe.train.seed)}.fold("weights");
}

}  // namespace

StepRunner::StepRunner(const Recipe& recipe, Device device, ParameterStore::Mode mode)
    : recipe_(recipe),
      device_(device),
      store_(weights_key(recipe), DType::f32, mode, device),
      arena_(device) {
  model_ = std::make_unique<EncoderDecoder>(recipe_.model, recipe_.moe, store_);
  optimizer_ = make_optimizer(recipe_.optimizer, store_.parameters());
  keep_rounded_weights(recipe_, store_.parameters());
}

StepRunner::Gradients StepRunner::compute(const Batch& batch, int64_t step) {
  open_.reset();  // of a step that failed
  open_.emplace(arena_, "train");
  Gradients result;
  result.losses = accumulate_gradients(*model_, recipe_, batch.on(device_), step);
  result.norm = global_gradient_norm(store_.parameters());
  return result;
}

void StepRunner::update(double learning_rate, int64_t step, double norm) {
  const double limit = recipe_.train.gradient_clip;
  if (limit > 0 && norm > limit) scale_gradients(store_.parameters(), limit / norm);
  optimizer_->update(store_.parameters(), learning_rate, step);
}

void StepRunner::finish() {
  clear_gradients(store_.parameters());
  open_->finish();
  open_.reset();
  if (program_bytes_ == 0) program_bytes_ = measure_program_bytes(store_.parameters(), *optimizer_);
}

StepLosses StepRunner::held_out(const Batch& batch) {
  ArenaStep step(arena_, "evaluate");
  const StepLosses losses = held_out_losses(*model_, recipe_, batch.on(device_));
  step.finish();
  return losses;
}

MemoryPlan StepRunner::memory_plan() const {
  return plan_memory(program_bytes_, store_.parameters(), *optimizer_, arena_);
}

}  // namespace stmoe
