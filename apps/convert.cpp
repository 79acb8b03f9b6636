// SPDX-License-Identifier: Apache-2.0
// stmoe-convert: looks into checkpoints and checks them.
#include <cstdio>

#include "apps/common/program.h"
#include "lib/base/error.h"
#include "lib/checkpoint/report.h"
#include "lib/checkpoint/verify.h"
#include "lib/recipe/recipe.h"

namespace stmoe {
namespace {

struct Arguments {
  Path checkpoint;
  bool is_json = false;
};

// The lines that say what kind of model it is. The recipe of another version may not parse: that is
// worth a line, but no reason not to show the rest.
std::string recipe_summary(const Checkpoint& checkpoint) {
  try {
    const Recipe recipe = parse_config<Recipe>(checkpoint.recipe_yaml(), checkpoint.path());
    const ModelConfig& model = recipe.model;
    const MoeConfig& moe = recipe.moe;
    size_t num_sparse = moe.encoder_sparse_layers.size() + moe.decoder_sparse_layers.size();
    std::string experts = num_sparse == 0 ? "none: dense"
                                          : format("{} in each of {} sparse layers, router {}",
                                                   moe.num_experts, num_sparse, moe.router.kind());
    return format(
        "{:<16} d_model {}, d_ff {}, {} heads of {}, {} + {} layers, {}\n"
        "{:<16} {}\n"
        "{:<16} {}, schedule {}, compute {}\n",
        "model", model.d_model, model.d_ff, model.num_heads, model.d_kv, model.encoder_layers,
        model.decoder_layers, model.activation, "experts", experts, "optimizer",
        recipe.optimizer.kind(), recipe.schedule.kind(), recipe.precision.compute);
  } catch (const UsageError& error) {
    return format("{:<16} not one of this version: {}\n", "recipe", error.what());
  }
}

void inspect(const Arguments& arguments) {
  const Checkpoint checkpoint = Checkpoint::open(find_checkpoint(arguments.checkpoint));
  std::string text = arguments.is_json
                         ? checkpoint_json(checkpoint)
                         : describe_checkpoint(checkpoint, recipe_summary(checkpoint));
  std::fputs(text.c_str(), stdout);
}

void verify(const Arguments& arguments) {
  const Path checkpoint = find_checkpoint(arguments.checkpoint);
  const VerifiedCheckpoint verified = verify_checkpoint(checkpoint);
  std::fputs(format("{}: verified {} tensors, {} bytes\n", checkpoint.string(),
                    verified.num_tensors, verified.bytes)
                 .c_str(),
             stdout);
}

void define(Command& command, Arguments& arguments) {
  const char* help = "A checkpoint directory, or a run directory (its newest checkpoint)";
  Command& inspecting =
      command.subcommand("inspect", "Prints step, model, parameters and the table of tensors");
  inspecting.add("checkpoint", &arguments.checkpoint, help, {.required = true});
  inspecting.add("--json", &arguments.is_json, "Print JSON, with the whole recipe");
  inspecting.example("stmoe-convert inspect runs/quickstart");
  inspecting.run([&](const ProgramContext&) { inspect(arguments); });

  Command& verifying = command.subcommand(
      "verify", "Reads everything in a checkpoint and checks it against all checksums");
  verifying.add("checkpoint", &arguments.checkpoint, help, {.required = true});
  verifying.example("stmoe-convert verify runs/quickstart/checkpoints/step-00000500");
  verifying.run([&](const ProgramContext&) { verify(arguments); });
}

}  // namespace
}  // namespace stmoe

int main(int argc, char** argv) {
  stmoe::Arguments arguments;
  return stmoe::run_program(
      argc, argv, {.name = "stmoe-convert", .summary = "Looks into checkpoints and checks them."},
      [&](stmoe::Command& command) { stmoe::define(command, arguments); });
}
