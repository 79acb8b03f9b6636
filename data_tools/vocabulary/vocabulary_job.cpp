// SPDX-License-Identifier: Apache-2.0
#include "data_tools/vocabulary/vocabulary_job.h"

#include <charconv>
#include <unordered_map>

#include <sentencepiece_trainer.h>

#include "data_tools/progress.h"
#include "data_tools/vocabulary/sentence_sample.h"
#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/data/vocabulary.h"

namespace stmoe {
namespace {

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& texts) : texts_(texts) {}
  bool done() const override { return at_ == texts_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return texts_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& texts_;
  size_t at_ = 0;
};

SentenceSample read_sample(const VocabularyJob& job) {
  uint64_t total_bytes = 0;
  std::error_code code;
  for (const Path& input : job.inputs) {
    open_bytes(input);
    const auto bytes = std::filesystem::file_size(input, code);
    if (!code) total_bytes += bytes;
  }
  SentenceSample sample(job.sample_bytes);
  Progress progress("reading", total_bytes);
  uint64_t bytes_before = 0;
  for (const Path& input : job.inputs) {
    BlockReader reader(input, job.input.document_end(input));
    TextBlock block;
    while (reader.next(block)) {
      parse_documents(input, block, job.input,
                      [&](std::string_view text) { sample.add_document(text); });
      progress.show(bytes_before + block.file_position);
    }
    bytes_before += block.file_position;
  }
  if (sample.num_sentences_seen() == 0)
    throw InputError(
        format("{}: the input has no text to train a vocabulary on", job.inputs.front().string()));
  return sample;
}

// The number in "... Please set it to a value <= 3456."
int64_t number_after(std::string_view text, std::string_view mark) {
  int64_t number = 0;
  if (const size_t at = text.find(mark); at != std::string_view::npos)
    std::from_chars(text.data() + at + mark.size(), text.data() + text.size(), number);
  return number;
}

[[noreturn]] void fail_training(const VocabularyJob& job, std::string_view reason) {
  if (reason.find("Vocabulary size too high") != std::string_view::npos)
    throw UsageError(
        format("--size {}: the text is enough for at most {} pieces; lower --size or "
               "give more text",
               job.size, number_after(reason, "<= ")));
  if (reason.find("smaller than required_chars") != std::string_view::npos)
    throw UsageError(
        format("--size {}: the text has more different characters than that ({}); "
               "raise --size or lower --character-coverage",
               job.size, reason.substr(reason.find("required_chars"))));
  throw InputError(format("{}: no vocabulary could be trained: {}", job.output.string(), reason));
}

std::string train(const VocabularyJob& job, const std::vector<std::string>& sentences) {
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "unigram"},
      {"vocab_size", std::to_string(job.size)},
      {"character_coverage", format("{}", job.character_coverage)},
      {"normalization_rule_name", "nmt_nfkc"},
      {"pad_id", "0"},
      {"eos_id", "1"},
      {"unk_id", "2"},
      {"bos_id", "-1"},
      // The partition of the sentences among threads decides how sums are rounded: the same on
      // every machine.
      {"num_threads", "16"},
      {"minloglevel", "2"}};
  Sentences iterator(sentences);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
  if (!status.ok()) fail_training(job, status.error_message());
  return model;
}

}  // namespace

VocabularyReport run_vocabulary_job(const VocabularyJob& job) {
  const Stopwatch clock;
  std::error_code code;
  if (!job.overwrites && std::filesystem::exists(job.output, code))
    throw UsageError(format("{}: exists; remove it, choose another --output, or add --overwrite",
                            job.output.string()));
  VocabularyReport report;
  SentenceSample sample = read_sample(job);
  report.sentences_seen = sample.num_sentences_seen();
  report.bytes_seen = sample.bytes_seen();
  const std::vector<std::string> sentences = sample.take();
  report.sentences_used = sentences.size();
  for (const std::string& sentence : sentences) report.bytes_used += sentence.size();
  log_info("[data] training {} pieces on {:.1f} MB of text", job.size,
           static_cast<double>(report.bytes_used) / 1e6);
  const std::string model = train(job, sentences);
  if (job.output.has_parent_path()) make_directories(job.output.parent_path());
  write_file_atomically(job.output, model);
  const Vocabulary vocabulary = Vocabulary::load(job.output);
  report.num_pieces = vocabulary.num_pieces();
  report.size = vocabulary.size();
  report.padded_size = vocabulary.padded_size();
  report.hash = vocabulary.hash();
  report.seconds = clock.seconds();
  return report;
}

std::string report_table(const VocabularyReport& report) {
  std::string text;
  auto line = [&](std::string_view name, const std::string& value) {
    text += format("{:<18}{}\n", name, value);
  };
  line("pieces", format("{}", report.num_pieces));
  line("with sentinels", format("{} (embedding rows: {})", report.size, report.padded_size));
  line("trained on", format("{} of {} lines, {:.1f} of {:.1f} MB", report.sentences_used,
                            report.sentences_seen, static_cast<double>(report.bytes_used) / 1e6,
                            static_cast<double>(report.bytes_seen) / 1e6));
  line("hash", report.hash);
  line("seconds", format("{:.1f}", report.seconds));
  return text;
}

}  // namespace stmoe
