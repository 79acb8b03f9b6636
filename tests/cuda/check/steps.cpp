// SPDX-License-Identifier: Apache-2.0
// Whole training steps of recipes: tokens a second, share of the peak, memory, and where the time
// goes by component; losses of bf16 beside f32 on real text; the largest batch beside the plan.
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/format.h"
#include "lib/model/flops.h"
#include "lib/plan/plan.h"
#include "lib/tensor/device_memory.h"
#include "lib/train/benchmark.h"
#include "lib/train/trainer.h"
#include "lib/train/vocabulary_size.h"
#include "tests/cuda/check/models.h"

namespace stmoe::check {
namespace {

constexpr double kDatasheetFlops = 989e12;  // H200 and H100, dense bf16

struct Row {
  std::string name, recipe;
  std::vector<std::string> changes;
};

std::vector<std::string> with_lengths(int64_t batch, std::vector<std::string> more = {}) {
  std::vector<std::string> all = {"data.input_length=512", "data.target_length=114",
                                  format("data.batch_size={}", batch), "precision.compute=bf16",
                                  "schedule={kind: rsqrt, warmup_steps: 10000}"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<Row> rows_of(const Settings& settings) {
  if (settings.is_tiny)
    return {{"tiny",
             "smoke/switch-tiny.yaml",
             {"model.vocabulary_size=256", "model.d_model=16", "data.batch_size=2",
              "data.input_length=16", "data.target_length=8", "precision.compute=bf16"}}};
  return {
      {"Switch-Base-8, batch 64", "models/switch-base-8.yaml", with_lengths(64)},
      {"Switch-Base-128, batch 256", "models/switch-base-128.yaml", with_lengths(256)},
      {"ST-MoE-L, batch 96", "models/st-moe-l.yaml", with_lengths(96)},
      {"one layer of ST-MoE-32B, batch 32", "bench/bench-st-moe-32b-layer.yaml", {}},
      {"Switch-Base-128, batch 128", "models/switch-base-128.yaml", with_lengths(128)},
  };
}

// Ops as gpu.md's table of components names them.
std::string component_of(const std::string& op) {
  static const std::vector<std::pair<const char*, const char*>> kComponents = {
      {"attention", "attention core"},
      {"expert_linear", "experts"},
      {"linear_cross_entropy", "logits and loss"},
      {"cross_entropy", "logits and loss"},
      {"linear", "dense products"},
      {"geglu", "activations"},
      {"relu", "activations"},
      {"gelu", "activations"},
      {"norm", "norms and residuals"},
      {"residual", "norms and residuals"},
      {"dropout", "norms and residuals"},
      {"dispatch", "dispatch and combine"},
      {"combine", "dispatch and combine"},
      {"router", "router"},
      {"softmax", "router"},
      {"top_k", "router"},
      {"slots", "router"},
      {"load_balance", "router"},
      {"embedding", "embedding"},
      {"bias", "relative bias"},
      {"optimizer", "optimizer"},
      {"adafactor", "optimizer"},
      {"gradient", "optimizer"}};
  for (const auto& [part, component] : kComponents)
    if (op.find(part) != std::string::npos) return component;
  return "other";
}

Json components_of(const Json& by_op) {
  Json result = Json::object();
  for (const Json& op : by_op) {
    Json& sum = result[component_of(op["op"])];
    for (const char* pass : {"forward", "backward"})
      for (const char* what : {"seconds", "flops", "bytes"}) {
        const double before = sum.contains(what) ? sum[what].get<double>() : 0;
        sum[what] = before + op[format("{}_{}", pass, what)].get<double>();
      }
  }
  return result;
}

void time_row(const Settings& settings, Report& report, const Row& row) {
  const Recipe recipe = load_recipe(settings.recipes / row.recipe, row.changes);
  const BenchmarkResult result =
      run_benchmark(recipe, {.steps = settings.is_tiny ? 1 : 20, .device = settings.device});
  Json values = Json::parse(benchmark_json(result));
  const Json by_op = values["by_op"];
  values.erase("by_op");
  values["batch"] = recipe.data.batch_size;
  values["flops_utilization_of_989"] = result.model_flops_per_second / kDatasheetFlops;
  values["planned_memory_bytes"] = plan_step(recipe, Device::cuda).total();
  report.line(row.name, values, "tokens/s");
  report.line(row.name + ", by component", components_of(by_op), "s");
  report.line(row.name + ", by op", by_op, "s");
}

}  // namespace

void time_steps(const Settings& settings, Report& report) {
  for (const Row& row : rows_of(settings)) {
    if (!settings.wants(row.name)) continue;
    if (!settings.has_time()) {
      report.failed(row.name, "no time was left");
      continue;
    }
    try {
      time_row(settings, report, row);
    } catch (const std::exception& error) {
      report.failed(row.name, error.what());
    }
  }
}

void compare_precisions(const Settings& settings, Report& report) {
  const int steps = settings.is_tiny ? 2 : 300;
  std::vector<std::string> changes = {"vocabulary.model=" + settings.vocabulary.string(),
                                      "data.train=" + settings.train.string(),
                                      "data.validation=" + settings.held_out.string(),
                                      "train.seed=" + std::to_string(settings.seed)};
  if (settings.is_tiny)
    for (const char* change :
         {"model.d_model=16", "model.d_ff=32", "model.encoder_layers=2", "model.decoder_layers=2",
          "moe.encoder_sparse_layers=[1]", "moe.decoder_sparse_layers=[1]", "data.batch_size=2",
          "data.input_length=32", "data.target_length=12", "data.validation_batches=1"})
      changes.push_back(change);
  std::vector<double> held_out, tail;
  for (const std::string compute : {"f32", "bf16"}) {
    std::vector<std::string> all = changes;
    all.push_back("precision.compute=" + compute);
    const Recipe recipe = with_vocabulary_size(
        load_recipe(settings.recipes / "pretrain/quickstart.yaml", all), "losses");
    Trainer trainer(recipe, open_training_data(recipe), Trainer::Weights::initialized,
                    settings.device);
    Json losses = Json::array();
    double sum = 0;
    for (int step = 0; step < steps; ++step) {
      trainer.train_step();
      losses.push_back(trainer.take_metrics().loss);
      if (step >= steps - 20) sum += losses.back().get<double>();
    }
    const auto metrics = trainer.evaluate();
    held_out.push_back(metrics ? metrics->values[0].second : 0);
    tail.push_back(sum / std::min(steps, 20));
    report.line(compute,
                {{"steps", steps},
                 {"losses", losses},
                 {"mean_of_last_20", tail.back()},
                 {"held_out_loss", held_out.back()}},
                "nats per target token");
  }
  report.line("difference",
              {{"steps", steps},
               {"held_out", std::abs(held_out[1] - held_out[0]) / held_out[0]},
               {"mean_of_last_20", std::abs(tail[1] - tail[0]) / tail[0]}},
              "relative");
}

void check_memory(const Settings& settings, Report& report) {
  const auto recipe_at = [&](int64_t batch) {
    if (settings.is_tiny)
      return load_recipe(settings.recipes / "smoke/switch-tiny.yaml",
                         {"model.vocabulary_size=256", format("data.batch_size={}", batch),
                          "data.input_length=16", "data.target_length=8"});
    return load_recipe(settings.recipes / "models/switch-base-8.yaml", with_lengths(batch));
  };
  const int64_t unit = settings.is_tiny ? 1 : 32, most = settings.is_tiny ? 2 : 1024;
  const int64_t memory = kernels<DeviceMemoryKernels>(settings.device).total();
  int64_t batch = unit;
  while (batch < most && plan_step(recipe_at(batch + unit), Device::cuda).total() <= memory)
    batch += unit;
  report.line("largest batch planned", {{"batch", batch}, {"memory_bytes", memory}}, "sequences");
  for (const int64_t size : {batch, batch + unit}) {
    const Recipe recipe = recipe_at(size);
    Json values = {{"batch", size}, {"planned_bytes", plan_step(recipe, Device::cuda).total()}};
    try {
      SmallRun run(recipe, settings.device, settings.seed);
      for (int step = 0; step < 3; ++step) run.step();
      const int64_t taken = kernels<DeviceMemoryKernels>(settings.device).used();
      values["fits"] = true;
      values["taken_bytes"] = taken;
      values["planned_over_taken"] =
          values["planned_bytes"].get<double>() / static_cast<double>(taken);
    } catch (const OutOfMemoryError& error) {
      values["fits"] = false;
      values["error"] = error.what();
    }
    report.line(format("batch {}", size), values, "bytes");
    if (!settings.has_time(20)) return;
  }
}

}  // namespace stmoe::check
