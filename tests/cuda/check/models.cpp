// SPDX-License-Identifier: Apache-2.0
#include "tests/cuda/check/models.h"

#include "lib/base/random.h"
#include "lib/checkpoint/checkpoint.h"

namespace stmoe::check {

Recipe small_recipe(const Settings& settings, const std::vector<std::string>& changes) {
  std::vector<std::string> all = {"model.vocabulary_size=640", "train.steps=1000",
                                  "schedule={kind: constant, learning_rate: 0.01}",
                                  "moe.router={kind: top_k, k: 1}"};
  if (settings.is_tiny)
    for (const char* change : {"data.input_length=24", "data.target_length=10", "data.batch_size=3",
                               "model.vocabulary_size=256", "model.d_model=16", "model.d_ff=32"})
      all.push_back(change);
  else
    for (const char* change : {"model.d_model=128", "model.d_ff=256", "model.d_kv=32"})
      all.push_back(change);
  all.insert(all.end(), changes.begin(), changes.end());
  return load_recipe(settings.recipes / "smoke/switch-tiny.yaml", all);
}

Batch small_batch(const Recipe& recipe, uint64_t seed, int64_t step) {
  const int64_t rows = recipe.data.batch_size, length = recipe.data.input_length,
                target_length = recipe.data.resolved_target_length();
  RandomStream random(RandomKey{seed}.fold("batch").fold(static_cast<uint64_t>(step)));
  const auto token = [&] {
    return static_cast<int32_t>(
        2 + random.below(static_cast<uint64_t>(recipe.model.vocabulary_size - 2)));
  };
  Batch batch;
  batch.encoder_tokens_BL = Tensor::persistent({rows, length}, DType::i32);
  batch.encoder_segments_BL = Tensor::persistent({rows, length}, DType::i32);
  for (Tensor* tensor : {&batch.decoder_inputs_BT, &batch.targets_BT, &batch.decoder_segments_BT})
    *tensor = Tensor::persistent({rows, target_length}, DType::i32);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t inputs = std::max<int64_t>(1, length - row % 8),
                  targets = std::max<int64_t>(1, target_length - row % 8);
    for (int64_t i = 0; i < inputs; ++i) {
      batch.encoder_tokens_BL.data<int32_t>()[row * length + i] = token();
      batch.encoder_segments_BL.data<int32_t>()[row * length + i] = 1;
    }
    for (int64_t i = 0; i < targets; ++i) {
      const int64_t at = row * target_length + i;
      batch.targets_BT.data<int32_t>()[at] = token();
      batch.decoder_segments_BT.data<int32_t>()[at] = 1;
      if (i > 0)
        batch.decoder_inputs_BT.data<int32_t>()[at] = batch.targets_BT.data<int32_t>()[at - 1];
    }
    batch.num_input_tokens += inputs;
    batch.num_target_tokens += targets;
  }
  return batch;
}

SmallRun::SmallRun(const Recipe& recipe, Device device, uint64_t seed)
    : recipe_(recipe),
      seed_(seed),
      runner_(recipe, device, ParameterStore::Mode::initialized),
      schedule_(make_schedule(recipe.schedule, recipe.train.steps)) {}

double SmallRun::step() {
  const auto [losses, norm] = runner_.compute(small_batch(recipe_, seed_, step_), step_);
  runner_.update(schedule_->rate(step_), step_, norm);
  runner_.finish();
  ++step_;
  return losses.cross_entropy / static_cast<double>(losses.target_tokens);
}

std::vector<NamedTensor> SmallRun::weights() const {
  std::vector<NamedTensor> result;
  for (const Parameter& parameter : runner_.parameters())
    result.push_back({parameter.name, parameter.value.value().on(Device::cpu)});
  return result;
}

std::vector<NamedTensor> SmallRun::state() const {
  std::vector<NamedTensor> result;
  for (const NamedTensor& slot : runner_.optimizer().state())
    result.push_back({slot.name, slot.tensor.on(Device::cpu)});
  return result;
}

void SmallRun::save(const Path& folder) const {
  CheckpointContents contents;
  contents.step = step_;
  contents.weights = weights();
  contents.optimizer = state();
  contents.recipe_yaml = "{}";
  contents.vocabulary_hash = "none";
  contents.state_json = "{}";
  save_checkpoint(folder, contents);
}

void SmallRun::restore(const Path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(*newest_checkpoint(folder));
  std::vector<NamedTensor> read_weights, read_state;
  const auto host_copies = [](const std::vector<NamedTensor>& live) {
    std::vector<NamedTensor> copies;
    for (const NamedTensor& named : live)
      copies.push_back(
          {named.name, Tensor::empty_on_heap(named.tensor.shape(), named.tensor.dtype())});
    return copies;
  };
  read_weights = host_copies(weights());
  read_state = host_copies(state());
  checkpoint.read_weights(read_weights);
  checkpoint.read_optimizer(read_state);
  for (size_t i = 0; i < read_weights.size(); ++i) {
    const Var& weight = runner_.parameters()[i].value;
    weight.value().copy_from(read_weights[i].tensor);
    weight.value_changed();
  }
  const std::vector<NamedTensor> live = runner_.optimizer().state();
  for (size_t i = 0; i < live.size(); ++i) live[i].tensor.copy_from(read_state[i].tensor);
  step_ = checkpoint.step();
}

}  // namespace stmoe::check
