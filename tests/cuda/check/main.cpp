// SPDX-License-Identifier: Apache-2.0
// stmoe-gpu-check: scripts/gpu_check.sh runs its subcommands one by one.
#include "apps/common/program.h"
#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {
namespace {

struct Item {
  const char* name;
  const char* help;
  void (*run)(const Settings&, Report&);
};

constexpr Item kItems[] = {
    {"environment", "The device, its bandwidths, the product of 8192 rows", check_environment},
    {"model", "A small model against the same on the CPU: losses and gradients", check_model},
    {"determinism", "Fifty updates twice, as graphs and not, through a checkpoint: equal bytes",
     check_determinism},
    {"steps", "Whole training steps: tokens a second, utilization, memory, time by component",
     time_steps},
    {"kernels", "Kernels that move bytes, against the copy bandwidth", time_kernels},
    {"products", "Products of experts: strided batch, loop, one dense product", study_products},
    {"losses", "300 updates on real text in f32 and in bf16", compare_precisions},
    {"memory", "The largest batch that is planned to fit, run", check_memory},
};

struct Arguments {
  Settings settings;
  int64_t seed = 1;
  std::optional<double> seconds;
  std::optional<Path> recipes, train, held_out, vocabulary, scratch;

  void define(Command& command) {
    command.add("--tiny", &settings.is_tiny, "Tiny shapes: everything runs, figures mean nothing");
    command.add("--seconds", &seconds, "What does not fit in this time is left out (default 55)",
                {.at_least = 1});
    command.add("--seed", &seed, "Of the random values (default 1)", {.at_least = 0});
    command.add("--row", &settings.rows, "Only this row; any number of times");
    command.add("--recipes", &recipes, "The folder recipes/ (default: recipes)");
    command.add("--train", &train, "A packed corpus, for losses");
    command.add("--held-out", &held_out, "A packed corpus, for losses");
    command.add("--vocabulary", &vocabulary, "Its vocabulary, for losses");
    command.add("--scratch", &scratch, "A folder for checkpoints (default: gpu-check-scratch)");
  }

  Settings resolved(Device device) const {
    Settings result = settings;
    result.device = device;
    result.seed = static_cast<uint64_t>(seed);
    result.seconds = seconds.value_or(55);
    result.recipes = recipes.value_or("recipes");
    result.train = train.value_or("");
    result.held_out = held_out.value_or("");
    result.vocabulary = vocabulary.value_or("");
    result.scratch = scratch.value_or("gpu-check-scratch");
    result.watch.reset();
    return result;
  }
};

void run(const Item& item, const Arguments& arguments, const ProgramContext& context) {
  const Settings settings = arguments.resolved(context.device);
  if (is_host_memory(settings.device))
    throw UsageError("stmoe-gpu-check: there is nothing to check on " +
                     std::string(name_of(settings.device)) + "; use --device cuda");
  if (std::string(item.name) == "losses" &&
      (settings.train.empty() || settings.held_out.empty() || settings.vocabulary.empty()))
    throw UsageError("losses: needs --train, --held-out and --vocabulary");
  const PinnedThreads pinned;
  Report report(item.name, settings);
  item.run(settings, report);
  report.line("done", {{"seconds", settings.watch.seconds()}, {"passed", report.is_passed()}}, "s");
  if (!report.is_passed())
    throw BugError(std::string(item.name) + ": a check failed; its lines say which");
}

}  // namespace
}  // namespace stmoe::check

int main(int argc, char** argv) {
  stmoe::check::Arguments arguments[std::size(stmoe::check::kItems)];
  return stmoe::run_program(
      argc, argv,
      {.name = "stmoe-gpu-check", .summary = "Checks and measures a GPU; writes JSON lines."},
      [&](stmoe::Command& command) {
        for (size_t i = 0; i < std::size(stmoe::check::kItems); ++i) {
          const stmoe::check::Item& item = stmoe::check::kItems[i];
          stmoe::Command& own = command.subcommand(item.name, item.help);
          arguments[i].define(own);
          own.example(std::string("stmoe-gpu-check ") + item.name + " --device cuda");
          own.run([&item, &one = arguments[i]](const stmoe::ProgramContext& context) {
            stmoe::check::run(item, one, context);
          });
        }
      });
}
