// SPDX-License-Identifier: Apache-2.0
// stmoe-data: vocabularies and packed corpora.
#include <cstdio>

#include "apps/common/program.h"
#include "apps/common/signals.h"
#include "data_tools/corpus/corpus_job.h"
#include "data_tools/inspect/inspect_job.h"
#include "data_tools/vocabulary/vocabulary_job.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

void add_input_flags(Command& command, InputSettings& input) {
  command.add(
      "--format", &input.format,
      "lines: a document a line; paragraphs: separated by blank lines; json: JSON lines; auto "
      "(default): json for .json, .jsonl and .ndjson, else lines",
      {.one_of = {"auto", "lines", "paragraphs", "json"}});
  command.add("--key", &input.key, "Key of the text in JSON lines (default text)");
  command.add("--invalid-utf8", &input.invalid_utf8,
              "error (default) ends at a document that is not UTF-8, skip leaves it out",
              {.one_of = {"error", "skip"}});
}

struct VocabularyArguments {
  VocabularyJob job;
  std::vector<Path> more_inputs;
  int64_t sample_bytes = static_cast<int64_t>(job.sample_bytes);
};

struct CorpusArguments {
  CorpusJob job;
  std::string rules = "none";
};

void define_vocabulary(Command& program, VocabularyArguments& arguments) {
  VocabularyJob& job = arguments.job;
  Command& command =
      program.subcommand("vocabulary", "Train a SentencePiece vocabulary with T5's conventions");
  command.add(
      "--input", &job.inputs,
      "Text to train on: plain text or JSON lines, also .gz and .zst; many files may follow",
      {.required = true});
  command.add("files", &arguments.more_inputs, "More input files");
  command.add("--output", &job.output, "The model to write, such as english.model",
              {.required = true});
  command.add(
      "--size", &job.size,
      "Number of pieces, with pad, eos and unk (default 32000); the program adds 100 sentinels",
      {.at_least = 4, .at_most = 4e6});
  command.add("--character-coverage", &job.character_coverage,
              "Share of the characters that pieces must cover (default 0.9995; 1 for few different "
              "characters, less for Chinese or Japanese)",
              {.at_least = 0.5, .at_most = 1});
  command.add("--sample-bytes", &arguments.sample_bytes,
              "Train on a random sample of the lines of at most so many bytes (default 2e8)",
              {.at_least = 1});
  add_input_flags(command, job.input);
  command.add("--overwrite", &job.overwrites, "Replace an existing output");
  command.example(
      "stmoe-data vocabulary --size 8000 --input text/*.jsonl.gz --output english-8k.model");
  command.run([&](const ProgramContext&) {
    job.inputs.insert(job.inputs.end(), arguments.more_inputs.begin(), arguments.more_inputs.end());
    job.sample_bytes = static_cast<uint64_t>(arguments.sample_bytes);
    std::printf("%s", report_table(run_vocabulary_job(job)).c_str());
  });
}

void define_corpus(Command& program, CorpusArguments& arguments) {
  CorpusJob& job = arguments.job;
  Command& command = program.subcommand(
      "corpus", "Pack text into a corpus: tokenise on all cores, leave out duplicates");
  command.add("--vocabulary", &job.vocabulary, "SentencePiece model", {.required = true});
  command.add("--output", &job.output, "The corpus to write (.h5)", {.required = true});
  command.add("inputs", &job.inputs, "Plain text or JSON lines, also .gz and .zst",
              {.required = true});
  add_input_flags(command, job.input);
  command.add("--clean", &arguments.rules,
              "c4 applies C4's rules for English web pages (default none)",
              {.one_of = {"none", "c4"}});
  command.add("--bad-words", &job.bad_words,
              "With --clean c4: drop documents with a word of this file, one a line");
  command.add("--keep-duplicates", &job.keeps_duplicates,
              "Keep documents whose text was there before");
  command.add("--overwrite", &job.overwrites, "Replace an existing output");
  command.example("stmoe-data corpus --vocabulary spiece.model --output c4.h5 c4-train.*.json.gz");
  command.run([&](const ProgramContext&) {
    job.uses_c4_rules = arguments.rules == "c4";
    if (job.bad_words && !job.uses_c4_rules)
      throw UsageError("--bad-words: belongs to --clean c4; add that");
    job.num_workers = num_threads();
    static StopRequest stop;
    stop_on_signals(stop);
    const CorpusReport report = run_corpus_job(job, stop);
    std::printf("%s", report_table(report.all, report.this_run, report.seconds).c_str());
  });
}

void define_inspect(Command& program, InspectJob& job) {
  Command& command = program.subcommand("inspect", "Show what is in a packed corpus");
  command.add("corpus", &job.corpus, "Packed corpus", {.required = true});
  command.add("--json", &job.is_json, "Print JSON and nothing else");
  command.add("--vocabulary", &job.vocabulary,
              "The model the corpus was made with: shows an example of span corruption");
  command.add("--documents", &job.num_documents, "Show the beginnings of N documents",
              {.at_least = 0});
  command.add("--input-length", &job.input_length, "Encoder tokens of the example (default 128)",
              {.at_least = 2, .at_most = 1024});
  command.example("stmoe-data inspect c4.h5 --vocabulary spiece.model --documents 3");
  command.run([&](const ProgramContext&) { std::printf("%s", run_inspect_job(job).c_str()); });
}

}  // namespace
}  // namespace stmoe

int main(int argc, char** argv) {
  stmoe::VocabularyArguments vocabulary;
  stmoe::CorpusArguments corpus;
  stmoe::InspectJob inspect;
  const stmoe::ProgramInfo info{
      .name = "stmoe-data",
      .summary = "Trains vocabularies, packs text into corpora, inspects them."};
  return stmoe::run_program(argc, argv, info, [&](stmoe::Command& program) {
    stmoe::define_vocabulary(program, vocabulary);
    stmoe::define_corpus(program, corpus);
    stmoe::define_inspect(program, inspect);
  });
}
