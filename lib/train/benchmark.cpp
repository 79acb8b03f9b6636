// SPDX-License-Identifier: Apache-2.0
#include "lib/train/benchmark.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "lib/base/clock.h"
#include "lib/base/random.h"
#include "lib/base/threads.h"
#include "lib/data/batch_source.h"
#include "lib/model/flops.h"
#include "lib/ops/product_peak.h"
#include "lib/optim/schedule.h"
#include "lib/tensor/device_memory.h"
#include "lib/train/benchmark_file.h"
#include "lib/train/routing_log.h"
#include "lib/train/step_runner.h"
#include "lib/train/vocabulary_size.h"

namespace stmoe {
namespace {

constexpr int kWarmupSteps = 2;
// The third is recorded and made a graph for the first time.
constexpr int kDeviceWarmupSteps = 4, kDeviceProfileSteps = 2;
constexpr double kPeakSeconds = 0.5;

// Uniform tokens over the vocabulary without padding, one example a row.
Tensor random_tokens(int64_t rows, int64_t length, int64_t vocabulary, RandomKey key) {
  Tensor tokens = Tensor::persistent({rows, length}, DType::i32);
  RandomStream stream(key);
  for (int32_t& token : tokens.span<int32_t>())
    token = static_cast<int32_t>(2 + stream.below(static_cast<uint64_t>(vocabulary - 2)));
  return tokens;
}

Batch synthetic_batch(const Recipe& recipe) {
  const int64_t rows = recipe.data.batch_size, length = recipe.data.input_length;
  const int64_t target_length = recipe.data.resolved_target_length();
  const int64_t vocabulary = recipe.model.vocabulary_size;
  const RandomKey key = RandomKey{static_cast<uint64_t>(recipe.train.seed)}.fold("benchmark");
  Batch batch;
  batch.encoder_tokens_BL = random_tokens(rows, length, vocabulary, key.fold("inputs"));
  batch.targets_BT = random_tokens(rows, target_length, vocabulary, key.fold("targets"));
  batch.encoder_segments_BL = Tensor::full({rows, length}, DType::i32, 1);
  batch.decoder_segments_BT = Tensor::full({rows, target_length}, DType::i32, 1);
  batch.decoder_inputs_BT = Tensor::persistent({rows, target_length}, DType::i32);
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* from = batch.targets_BT.data<int32_t>() + row * target_length;
    std::copy_n(from, target_length - 1,
                batch.decoder_inputs_BT.data<int32_t>() + row * target_length + 1);
  }
  batch.num_input_tokens = rows * length;
  batch.num_target_tokens = rows * target_length;
  return batch;
}

std::string short_table(const Profile& profile) {
  std::string text =
      format("{:24} {:>10} {:>10} {:>7}\n", "op, seconds a step", "forward", "backward", "share");
  const double steps = static_cast<double>(profile.steps);
  auto row = [&](const std::string& name, double forward, double backward) {
    text += format("{:24} {:10.4f} {:10.4f} {:5.1f} %\n", name, forward / steps, backward / steps,
                   100 * (forward + backward) / profile.step_seconds);
  };
  for (const OpTime& op : profile.ops) row(op.op, op.forward.seconds, op.backward.seconds);
  row("outside ops", profile.outside_ops_seconds, 0);
  return text;
}

}  // namespace

BenchmarkResult run_benchmark(const Recipe& original, const BenchmarkOptions& options) {
  STMOE_CHECK(options.steps >= 1);
  const Recipe recipe = with_vocabulary_size(original, "--benchmark");
  const PinnedThreads pinned;
  BenchmarkResult result;
  result.product_peak_flops_per_second =
      measure_product_peak(parse_dtype(recipe.precision.compute), kPeakSeconds, options.device);
  auto runner =
      std::make_unique<StepRunner>(recipe, options.device, ParameterStore::Mode::initialized);
  const auto schedule = make_schedule(recipe.schedule, recipe.train.steps);
  const Batch batch = synthetic_batch(recipe);
  if (options.output) write_benchmark_file(*options.output, recipe, runner->parameters(), batch);
  std::vector<double> seconds;
  const auto run_step = [&](int64_t step) {
    const Stopwatch watch;
    const StepScope scope;
    auto [losses, norm] = runner->compute(batch, step);
    if (step == 0)
      result.first_loss = losses.cross_entropy / static_cast<double>(losses.target_tokens);
    runner->update(schedule->rate(step), step, norm);
    runner->finish();
    result.routing = std::move(losses.layers);
    return watch.seconds();
  };
  // A device is profiled after its steps were timed: waiting for each op slows it down.
  const bool profiles_while_timing = is_host_memory(options.device);
  const int64_t warmup = profiles_while_timing ? kWarmupSteps : kDeviceWarmupSteps;
  const int64_t last = warmup + options.steps;
  for (int64_t step = 0; step < last; ++step) {
    if (step == warmup && profiles_while_timing) start_profile(options.most_events);
    const double time = run_step(step);
    if (step >= warmup) seconds.push_back(time);
  }
  if (!profiles_while_timing) {
    start_profile(options.most_events);
    for (int64_t step = last; step < last + kDeviceProfileSteps; ++step) run_step(step);
  }
  result.profile = stop_profile();
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2),
                   seconds.end());
  result.seconds_per_step = seconds[seconds.size() / 2];
  result.tokens_per_second = static_cast<double>(batch.num_input_tokens + batch.num_target_tokens) /
                             result.seconds_per_step;
  result.model_flops_per_second =
      static_cast<double>(recipe.data.batch_size) *
      training_flops_per_sequence(
          recipe.model, recipe.moe,
          {recipe.data.input_length, recipe.data.resolved_target_length()}) /
      result.seconds_per_step;
  result.memory = runner->memory_plan();
  result.alive_at_peak = alive_table(runner->arena());
  result.peak_memory_bytes = runner->peak_bytes();
  runner.reset();  // what follows needs memory of its own
  result.peaks = measure_machine_peaks(options.device);
  return result;
}

std::string benchmark_table(const BenchmarkResult& r, bool has_profile) {
  const double mib = 1.0 / (1 << 20);
  std::string text = format(
      "tokens per second    {:10.0f}\nseconds per step     {:10.3f}\n"
      "first loss           {:10.4f}\nmodel GFLOP/s        {:10.1f}   ({:.1f} % of the product "
      "peak, {:.1f})\nmemory GB/s          {:10.1f}   (measured, all threads)\n"
      "peak memory, MiB     {:10.0f}   ({})\n\n",
      r.tokens_per_second, r.seconds_per_step, r.first_loss, r.model_flops_per_second * 1e-9,
      100 * r.model_flops_per_second / r.product_peak_flops_per_second,
      r.product_peak_flops_per_second * 1e-9, r.peaks.memory_bytes_per_second * 1e-9,
      static_cast<double>(r.peak_memory_bytes) * mib, r.memory.text());
  if (!r.routing.empty()) text += format("routing              {}\n\n", routing_text(r.routing));
  if (!has_profile) return text + short_table(r.profile);
  return text + profile_table(r.profile, r.peaks) + "\n" + r.alive_at_peak;
}

std::string benchmark_json(const BenchmarkResult& r, bool has_profile) {
  using Json = nlohmann::ordered_json;
  const MemoryPlan& memory = r.memory;
  Json json = {{"tokens_per_second", r.tokens_per_second},
               {"seconds_per_step", r.seconds_per_step},
               {"first_loss", r.first_loss},
               {"model_flops_per_second", r.model_flops_per_second},
               {"product_peak_flops_per_second", r.product_peak_flops_per_second},
               {"memory_bandwidth_bytes_per_second", r.peaks.memory_bytes_per_second},
               {"peak_memory_bytes", r.peak_memory_bytes},
               {"planned_memory_bytes", memory.total()},
               {"planned_memory",
                {{"weights", memory.weights},
                 {"optimizer", memory.optimizer},
                 {"step", memory.step},
                 {"scratch", memory.scratch},
                 {"program", memory.program}}},
               {"by_op", Json::array()},
               {"routing", Json::object()}};
  for (const LayerRouting& layer : r.routing)
    for (const auto& [name, value] : layer_values(layer.statistics))
      json["routing"][layer.name][name] = value;
  const double steps = static_cast<double>(r.profile.steps);
  for (const OpTime& op : r.profile.ops)
    json["by_op"].push_back({{"op", op.op},
                             {"forward_seconds", op.forward.seconds / steps},
                             {"backward_seconds", op.backward.seconds / steps},
                             {"forward_flops", op.forward.work.all_flops() / steps},
                             {"backward_flops", op.backward.work.all_flops() / steps},
                             {"forward_bytes", op.forward.work.bytes / steps},
                             {"backward_bytes", op.backward.work.bytes / steps}});
  if (!has_profile) return json.dump(2) + "\n";
  json["products"] = Json::array();
  for (const ProductTime& product : r.profile.products)
    json["products"].push_back(
        {{"op", product.op},
         {"pass", product.pass == OpScope::Pass::forward ? "forward" : "backward"},
         {"product", product.shape.text()},
         {"seconds", product.time.seconds / steps},
         {"calls", static_cast<double>(product.time.calls) / steps},
         {"flops", product.time.work.all_flops() / steps},
         {"peak_share", reached({product.time.seconds, 0, product.time.work}, r.peaks).share}});
  return json.dump(2) + "\n";
}

}  // namespace stmoe
