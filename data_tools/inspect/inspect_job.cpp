// SPDX-License-Identifier: Apache-2.0
#include "data_tools/inspect/inspect_job.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/data/span_corruption.h"

namespace stmoe {
namespace {

constexpr uint64_t kLongestExcerpt = 200;  // tokens of a document

struct Sample {
  uint64_t document = 0, num_tokens = 0;
  std::string text;
};
struct CorruptedSample {
  std::string inputs, targets;
};

std::vector<Sample> sample_documents(const Corpus& corpus, const Vocabulary& vocabulary,
                                     uint64_t count) {
  std::vector<Sample> samples;
  count = std::min(count, corpus.num_documents());
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t document = i * corpus.num_documents() / count;
    Corpus::Range range = corpus.document(document);
    Sample sample{document, range.size(), ""};
    range.end = std::min(range.end, range.begin + kLongestExcerpt);
    std::vector<int32_t> tokens;
    corpus.read(range, tokens);
    sample.text = vocabulary.decode(tokens);
    if (range.size() < sample.num_tokens) sample.text += " ...";
    samples.push_back(std::move(sample));
  }
  return samples;
}

// The first tokens of the corpus as pretraining would show them.
CorruptedSample corrupt_sample(const Corpus& corpus, const Vocabulary& vocabulary,
                               int64_t input_length) {
  const SpanCorruption settings;
  const auto lengths = span_corruption_lengths(input_length, settings);
  const uint64_t end = std::min(static_cast<uint64_t>(lengths.raw), corpus.num_tokens());
  std::vector<int32_t> tokens;
  corpus.read({0, end}, tokens);
  Example example = corrupt_spans(tokens, settings, vocabulary.sentinel(0), RandomKey{1});
  append_eos_after_trim(example, input_length, lengths.targets);
  return {vocabulary.decode(example.inputs), vocabulary.decode(example.targets)};
}

std::string json_text(const Corpus& corpus, const CorpusSummary& summary,
                      const std::vector<Sample>& samples,
                      const std::optional<CorruptedSample>& corrupted) {
  nlohmann::ordered_json json = {{"file", corpus.path().string()},
                                 {"documents", summary.documents},
                                 {"tokens", summary.tokens},
                                 {"text_bytes", summary.text_bytes},
                                 {"document_tokens",
                                  {{"min", summary.shortest},
                                   {"mean", summary.mean_length},
                                   {"median", summary.median},
                                   {"p90", summary.percentile_90},
                                   {"max", summary.longest}}},
                                 {"distinct_tokens", summary.distinct_tokens},
                                 {"unknown_fraction", summary.unknown_fraction},
                                 {"unigram_entropy", summary.unigram_entropy},
                                 {"vocabulary",
                                  {{"name", corpus.vocabulary_name()},
                                   {"size", corpus.vocabulary_size()},
                                   {"hash", corpus.vocabulary_hash()}}}};
  for (const Sample& sample : samples)
    json["samples"].push_back(
        {{"document", sample.document}, {"tokens", sample.num_tokens}, {"text", sample.text}});
  if (corrupted)
    json["span_corruption"] = {{"inputs", corrupted->inputs}, {"targets", corrupted->targets}};
  return json.dump() + "\n";
}

std::string table_text(const Corpus& corpus, const CorpusSummary& summary,
                       const std::vector<Sample>& samples,
                       const std::optional<CorruptedSample>& corrupted) {
  std::string text;
  auto line = [&](std::string_view name, const std::string& value) {
    text += format("{:<18}{}\n", name, value);
  };
  line("file", corpus.path().string());
  line("documents", format("{}", summary.documents));
  line("tokens", format("{} ({} different ones, {:.3f}% unknown)", summary.tokens,
                        summary.distinct_tokens, 100 * summary.unknown_fraction));
  line("text",
       format("{} bytes, {:.2f} per token", summary.text_bytes,
              static_cast<double>(summary.text_bytes) / static_cast<double>(summary.tokens)));
  line("document tokens",
       format("min {}, median {}, mean {:.1f}, 90% {}, max {}", summary.shortest, summary.median,
              summary.mean_length, summary.percentile_90, summary.longest));
  line("unigram entropy", format("{:.4f} nats per token", summary.unigram_entropy));
  line("vocabulary", format("{} ({} ids), hash {}", corpus.vocabulary_name(),
                            corpus.vocabulary_size(), corpus.vocabulary_hash()));
  for (const Sample& sample : samples)
    text +=
        format("\ndocument {} ({} tokens)\n{}\n", sample.document, sample.num_tokens, sample.text);
  if (corrupted)
    text += format("\nspan corruption of the first tokens\ninputs   {}\ntargets  {}\n",
                   corrupted->inputs, corrupted->targets);
  return text;
}

}  // namespace

std::string run_inspect_job(const InspectJob& job) {
  if (job.num_documents > 0 && !job.vocabulary)
    throw UsageError("--documents: needs --vocabulary, the model the corpus was made with");
  const Corpus corpus = Corpus::open(job.corpus);
  std::vector<Sample> samples;
  std::optional<CorruptedSample> corrupted;
  if (job.vocabulary) {
    const Vocabulary vocabulary = Vocabulary::load(*job.vocabulary);
    corpus.check_vocabulary(vocabulary);
    samples = sample_documents(corpus, vocabulary, static_cast<uint64_t>(job.num_documents));
    corrupted = corrupt_sample(corpus, vocabulary, job.input_length);
  }
  const CorpusSummary summary = summarize(corpus);
  return job.is_json ? json_text(corpus, summary, samples, corrupted)
                     : table_text(corpus, summary, samples, corrupted);
}

}  // namespace stmoe
