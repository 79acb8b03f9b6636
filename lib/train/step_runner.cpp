// SPDX-License-Identifier: Apache-2.0
#include "lib/train/step_runner.h"

#include "lib/base/log.h"
#include "lib/base/profile.h"
#include "lib/optim/gradients.h"
#include "lib/tensor/device_memory.h"

namespace stmoe {
namespace {

RandomKey weights_key(const Recipe& recipe) {
  return RandomKey{static_cast<uint64_t>(recipe.train.seed)}.fold("weights");
}

}  // namespace

StepRunner::StepRunner(const Recipe& recipe, Device device, ParameterStore::Mode mode)
    : recipe_(recipe),
      device_(device),
      store_(weights_key(recipe), DType::f32, mode, device,
             parse_weight_storage(recipe.precision.weights)),
      arena_(device),
      gradients_graph_(make_step_graph(device)),
      update_graph_(make_step_graph(device)),
      can_record_(!is_host_memory(device) && recipe.cuda.graphs == "auto") {
  if (!is_host_memory(device)) set_profile_wait(kernels<DeviceMemoryKernels>(device).wait);
  model_ = std::make_unique<EncoderDecoder>(recipe_.model, recipe_.moe, store_);
  optimizer_ = make_optimizer(recipe_.optimizer, store_.parameters());
  keep_rounded_weights(recipe_, store_.parameters());
}

void StepRunner::open_step() {
  open_.reset();  // of a step that failed
  clear_gradients(store_.parameters());
  open_.emplace(arena_, "train");
  // The first step plans the memory, the second is the first to lie where all later ones do. A
  // profile needs the ops one by one.
  is_recorded_ = can_record_ && num_steps_ >= 2 && !is_profiling();
}

template <class Body>
void StepRunner::run(StepGraph& graph, Body&& body) {
  if (!is_recorded_) return body();
  StepRecording recording(graph);
  body();
  recording.run();
}

std::unique_ptr<StepReadings> StepRunner::gradients(const Batch& batch, int64_t step) {
  open_step();
  const Batch there = batch.on(device_);
  std::unique_ptr<StepReadings> readings;
  run(*gradients_graph_, [&] {
    readings = record_gradients(*model_, recipe_, there, step);
    readings->readout.collect();
  });
  return readings;
}

StepRunner::Gradients StepRunner::compute(const Batch& batch, int64_t step) {
  Gradients result;
  try {
    result.losses = gradients(batch, step)->read();
  } catch (const HostReadError&) {
    can_record_ = false;
    log_info("[train] steps are not recorded as graphs: this model's routing is read by the host");
    result.losses = gradients(batch, step)->read();
  }
  result.norm = global_gradient_norm(store_.parameters());
  return result;
}

void StepRunner::update(double learning_rate, int64_t step, double norm) {
  run(*update_graph_, [&] {
    const double limit = recipe_.train.gradient_clip;
    if (limit > 0 && norm > limit) scale_gradients(store_.parameters(), limit / norm);
    optimizer_->update(store_.parameters(), learning_rate, step);
  });
}

void StepRunner::finish() {
  clear_gradients(store_.parameters());
  open_->finish();
  open_.reset();
  ++num_steps_;
  if (program_bytes_ == 0)
    program_bytes_ = is_host_memory(device_)
                         ? measure_program_bytes(store_.parameters(), *optimizer_)
                         : kernels<DeviceMemoryKernels>(device_).used() -
                               static_cast<int64_t>(device_bytes_in_use());
}

StepLosses StepRunner::held_out(const Batch& batch) {
  ArenaStep step(arena_, "evaluate");
  const StepLosses losses = held_out_losses(*model_, recipe_, batch.on(device_));
  step.finish();
  return losses;
}

int64_t StepRunner::peak_bytes() const {
  return is_host_memory(device_) ? peak_resident_bytes()
                                 : kernels<DeviceMemoryKernels>(device_).used();
}

MemoryPlan StepRunner::memory_plan() const {
  return plan_memory(program_bytes_, store_.parameters(), *optimizer_, arena_);
}

}  // namespace stmoe
