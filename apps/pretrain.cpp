// SPDX-License-Identifier: Apache-2.0
// stmoe-pretrain: span-corruption pretraining of a recipe. Arguments become a Recipe and one call
// into lib/train.
#include "lib/train/pretrain.h"

#include <cstdio>

#include "apps/common/program.h"
#include "lib/base/cpu_level.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/ops/product_tuning.h"
#include "lib/plan/plan.h"
#include "lib/train/benchmark.h"
#include "lib/train/vocabulary_size.h"

namespace stmoe {
namespace {

struct Arguments {
  Path recipe;
  std::vector<std::string> overrides;
  std::optional<Path> output;
  std::optional<int64_t> steps, benchmark, ranks;
  std::string resume = "auto";
  std::optional<std::string> profile;  // where the trace goes; empty: the default
  std::optional<std::string> machine;
  bool print_recipe = false, is_plan = false, is_json = false, is_autotune = false;

  void define(Command& command) {
    command.add("recipe", &recipe, "The recipe, a YAML file", {.required = true});
    command.add("--output", &output, "The run directory");
    command.add("--set", &overrides,
                "path.to.key=value: overrides the recipe; any number of times");
    command.add("--steps", &steps, "End at this step instead of the recipe's train.steps",
                {.at_least = 1});
    command.add("--resume", &resume,
                "auto (default), never, or the run or checkpoint directory to go on from");
    command.add(
        "--benchmark", &benchmark,
        "Time this many steps on synthetic tokens; with --output, the starting weights and the "
        "tokens go to DIR/benchmark.h5",
        {.at_least = 1});
    command.add("--profile", &profile,
                "=TRACE.json: time, FLOPs and bytes by op and by shape of product, and a trace for "
                "chrome://tracing; in a run, of its steps 3 to 12, in RUN/profile.txt and "
                "RUN/trace.json",
                {.implied = ""});
    command.add(
        "--plan", &is_plan,
        "Print what a run would take, and exit: parameters, FLOPs, memory by kind, the least "
        "time of a step, and keys that would make it fit; nothing of the model is allocated");
    command.add("--ranks", &ranks, "With --plan: for so many processes; this version has one",
                {.at_least = 1});
    command.add("--machine", &machine,
                "With --plan: for this GPU, which need not be here, instead of this machine",
                {.one_of = machine_names()});
    command.add("--autotune", &is_autotune,
                "Time the GPU's algorithms for every matrix product of a step, keep the fastest in "
                "the file that runs read them from (STMOE_ALGORITHMS, default "
                "~/.cache/stmoe/algorithms.txt), and exit");
    command.add("--json", &is_json, "With --plan or --benchmark: the result as JSON");
    command.add("--print-recipe", &print_recipe,
                "Print the whole recipe, defaults included, and exit");
    command.example("stmoe-pretrain recipes/pretrain/quickstart.yaml --output runs/first");
    command.example("stmoe-pretrain recipes/pretrain/switch-base-8.yaml --plan");
    command.example("stmoe-pretrain recipes/pretrain/switch-base-128.yaml --plan --machine h200");
    command.example(
        "stmoe-pretrain recipes/bench/bench-switch-105m.yaml --benchmark 5 --set "
        "precision.compute=bf16");
  }

  void check() const {
    if (is_json && !benchmark && !is_plan)
      throw UsageError(
          "--json: goes with --plan or --benchmark; a run's numbers are in RUN/metrics.jsonl");
    if (benchmark.has_value() + print_recipe + is_plan + is_autotune > 1)
      throw UsageError("--benchmark, --plan, --autotune and --print-recipe: give one of them");
    if (machine && !is_plan) throw UsageError("--machine: goes with --plan");
    if (ranks && !is_plan) throw UsageError("--ranks: goes with --plan");
    if (ranks && *ranks > 1)
      throw UsageError(format(
          "--ranks: {} asked for, but this version runs as one process; leave it out", *ranks));
    if (!benchmark && !print_recipe && !is_plan && !is_autotune && !output)
      throw UsageError("--output is missing: give the run directory");
  }
};

void train(const Recipe& recipe, const Arguments& arguments, const ProgramContext& context) {
  PretrainOptions options{*arguments.output, arguments.steps, arguments.resume};
  options.device = context.device;
  options.profile = arguments.profile.has_value();
  if (options.profile && !arguments.profile->empty()) options.trace = *arguments.profile;
  pretrain(recipe, options, context.stop);
}

void benchmark(const Recipe& recipe, const Arguments& arguments, const ProgramContext& context) {
  const bool has_trace = arguments.profile && !arguments.profile->empty();
  const BenchmarkResult result =
      run_benchmark(recipe, {.steps = *arguments.benchmark,
                             .device = context.device,
                             .most_events = has_trace ? kMostTraceEvents : 0,
                             .output = arguments.output});
  const bool is_profiled = arguments.profile.has_value();
  std::fputs((arguments.is_json ? benchmark_json(result, is_profiled)
                                : benchmark_table(result, is_profiled))
                 .c_str(),
             stdout);
  if (has_trace) write_trace(result.profile, *arguments.profile);
}

void autotune(const Recipe& recipe, const ProgramContext& context) {
  if (context.device != Device::cuda)
    throw UsageError(format("--autotune: is for a GPU, this run is on {} ({})",
                            name_of(context.device), context.device_reason));
  const Recipe sized = with_vocabulary_size(recipe, "--autotune");
  const auto products = record_products([&] { plan_step(sized, context.device); });
  std::fputs(kernels<ProductTuningKernels>(context.device).tune(products).c_str(), stdout);
}

void run(const Arguments& arguments, const ProgramContext& context) {
  arguments.check();
  const Recipe recipe = load_recipe(arguments.recipe, arguments.overrides);
  if (arguments.print_recipe) {
    std::fputs(print_config(recipe).c_str(), stdout);
    return;
  }
  log_info("[device] {} ({}), CPU kernels for {}", name_of(context.device), context.device_reason,
           name_of(cpu_level()));
  if (arguments.is_plan) {
    const DType dtype = parse_dtype(recipe.precision.compute);
    const Plan plan = make_plan(recipe, arguments.machine ? named_machine(*arguments.machine, dtype)
                                                          : this_machine(dtype, context.device));
    std::fputs((arguments.is_json ? plan_json(plan) : plan_table(plan)).c_str(), stdout);
    return;
  }
  if (arguments.is_autotune) return autotune(recipe, context);
  try {
    arguments.benchmark ? benchmark(recipe, arguments, context) : train(recipe, arguments, context);
  } catch (const OutOfMemoryError& error) {
    throw UsageError(explain_out_of_memory(recipe, context.device, error.what()));
  }
}

}  // namespace
}  // namespace stmoe

int main(int argc, char** argv) {
  stmoe::Arguments arguments;
  return stmoe::run_program(
      argc, argv,
      {.name = "stmoe-pretrain",
       .summary = "Pretrains a sparse (or dense) encoder-decoder by span corruption.",
       .stops_on_request = true},
      [&](stmoe::Command& command) {
        arguments.define(command);
        command.run([&](const stmoe::ProgramContext& context) { run(arguments, context); });
      });
}
