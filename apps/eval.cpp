// SPDX-License-Identifier: Apache-2.0
// stmoe-eval: the loss of a checkpoint on a packed corpus, and greedy generation.
#include <cstdio>
#include <fstream>
#include <iostream>

#include <unistd.h>

#include "apps/common/program.h"
#include "apps/common/version.h"
#include "lib/base/error.h"
#include "lib/eval/corpus_loss.h"
#include "lib/eval/generate.h"
#include "lib/eval/results.h"

namespace stmoe {
namespace {

struct EvalArguments {
  std::optional<Path> checkpoint, perplexity, output, input;
  std::optional<int64_t> max_length;
  bool json = false;
};

[[noreturn]] void fail_usage(const std::string& what) {
  throw UsageError(what + "\nsee stmoe-eval --help");
}

void perplexity(const EvalArguments& arguments, Device device) {
  if (!arguments.perplexity)
    fail_usage("nothing to do: give --perplexity CORPUS.h5, or the command generate");
  if (!arguments.checkpoint)
    fail_usage("--checkpoint is missing: name a checkpoint or a run directory");
  if (arguments.output) check_writable(*arguments.output);
  const LoadedModel loaded = load_model(*arguments.checkpoint, device);
  ValidationSource source(loaded.recipe.data, loaded.vocabulary, *arguments.perplexity,
                          /*num_batches=*/0);
  const CorpusLoss loss = corpus_loss(*loaded.model, source, loaded.compute());
  const std::string split = arguments.perplexity->filename().string();
  const EvaluationResults results = {"span_corruption",  split,
                                     loss.num_sequences, loss.metrics(),
                                     loaded.checkpoint,  version_text()};
  if (arguments.output) write_file_atomically(*arguments.output, json_text(results));
  std::fputs((arguments.json ? json_text(results) : table_text(results)).c_str(), stdout);
}

void generate_lines(const EvalArguments& arguments, Device device) {
  std::ifstream file;
  if (arguments.input) {
    file.open(*arguments.input);
    if (!file)
      throw InputError(
          format("{}: cannot be read ({})", arguments.input->string(), errno_text(errno)));
  }
  const LoadedModel loaded = load_model(*arguments.checkpoint, device);
  GenerationOptions options;
  options.max_length = arguments.max_length.value_or(0);
  // Someone who types waits for an answer to each line.
  if (!arguments.input && isatty(STDIN_FILENO)) options.batch_lines = 1;
  generate(loaded, arguments.input ? file : std::cin,
           arguments.input ? arguments.input->string() : "standard input", std::cout, options);
}

void define(Command& command, EvalArguments& arguments) {
  const std::string checkpoint_help = "Checkpoint, or run directory (its newest checkpoint)";
  command.add("--checkpoint", &arguments.checkpoint, checkpoint_help);
  command.add("--perplexity", &arguments.perplexity,
              "Packed corpus: report the span-corruption loss on all of it");
  command.add("--output", &arguments.output, "Also write the results as JSON to this file");
  command.add("--json", &arguments.json, "Print the results as JSON and nothing else");
  command.example(
      "stmoe-eval --checkpoint runs/quickstart --perplexity heldout.h5 --output results.json");
  command.example("stmoe-eval generate --checkpoint runs/quickstart --input blanks.txt");
  command.run([&](const ProgramContext& context) { perplexity(arguments, context.device); });
  Command& generation =
      command.subcommand("generate", "Write one line for each line read, decoded greedily");
  generation.add("--checkpoint", &arguments.checkpoint, checkpoint_help, {.required = true});
  generation.add("--input", &arguments.input, "Text file to read (default: standard input)");
  generation.add("--max-length", &arguments.max_length,
                 "Most tokens of an output (default: the recipe's target length)", {.at_least = 1});
  generation.example(
      "echo 'The <extra_id_0> is warm.' | stmoe-eval generate --checkpoint runs/quickstart");
  generation.run([&](const ProgramContext& context) { generate_lines(arguments, context.device); });
}

}  // namespace
}  // namespace stmoe

int main(int argc, char** argv) {
  stmoe::EvalArguments arguments;
  return stmoe::run_program(
      argc, argv,
      {.name = "stmoe-eval", .summary = "Measures a checkpoint, or writes text with it."},
      [&](stmoe::Command& command) { define(command, arguments); });
}
