// SPDX-License-Identifier: Apache-2.0
#include "lib/data/batch_source.h"

#include <nlohmann/json.hpp>

#include "lib/base/log.h"
#include "lib/base/profile.h"
#include "lib/data/batch_assembler.h"
#include "lib/data/prefetcher.h"

namespace stmoe {
namespace {

constexpr size_t kBatchesAhead = 4;
constexpr int kPositionVersion = 1;
// The held-out examples are the same whatever the recipe's seed.
constexpr RandomKey kValidationKey{0x5354C0DE};

ExampleStream::Settings stream_settings(const DataConfig& config, const Vocabulary& vocabulary,
                                        RandomKey key) {
  return {config.corruption(), config.input_length, config.resolved_target_length(),
          vocabulary.sentinel(0), key};
}

ExampleStream::Source open_source(const DataConfig& config, const Vocabulary& vocabulary,
                                  const CorpusConfig& corpus, RandomKey key,
                                  SegmentStream::Length length) {
  Corpus opened = Corpus::open(corpus.path.path());
  opened.check_vocabulary(vocabulary);
  return {SegmentStream(std::move(opened), key, config.lengths().raw, length), corpus.weight};
}

ExampleStream training_stream(const DataConfig& config, const Vocabulary& vocabulary,
                              RandomKey key) {
  if (config.train.empty())
    throw UsageError("data.train: no training corpus; name one made by stmoe-data corpus");
  std::vector<ExampleStream::Source> sources;
  for (const CorpusConfig& corpus : config.train)
    sources.push_back(open_source(config, vocabulary, corpus,
                                  key.fold("corpus").fold(sources.size()),
                                  SegmentStream::Length::endless));
  return ExampleStream(std::move(sources), stream_settings(config, vocabulary, key));
}

ExampleStream validation_stream(const DataConfig& config, const Vocabulary& vocabulary,
                                const Path& corpus) {
  CorpusConfig source;
  source.path = ConfigPath(corpus);
  std::vector<ExampleStream::Source> sources;
  sources.push_back(
      open_source(config, vocabulary, source, kValidationKey, SegmentStream::Length::one_epoch));
  return ExampleStream(std::move(sources), stream_settings(config, vocabulary, kValidationKey));
}

std::string position_text(const ExamplePosition& position, const ExampleStream& stream,
                          uint64_t seed) {
  nlohmann::ordered_json corpora = nlohmann::json::array();
  for (size_t i = 0; i < position.corpora.size(); ++i) {
    const Corpus& corpus = stream.sources()[i].segments.corpus();
    corpora.push_back({{"documents", corpus.num_documents()},
                       {"tokens", corpus.num_tokens()},
                       {"group", position.corpora[i].group},
                       {"offset", position.corpora[i].offset}});
  }
  const nlohmann::ordered_json json = {{"version", kPositionVersion},
                                       {"seed", seed},
                                       {"example", position.example},
                                       {"corpora", corpora}};
  return json.dump();
}

void check_corpus(const nlohmann::json& saved, const Corpus& corpus) {
  const auto documents = saved.at("documents").get<uint64_t>();
  const auto tokens = saved.at("tokens").get<uint64_t>();
  if (documents == corpus.num_documents() && tokens == corpus.num_tokens()) return;
  throw InputError(format(
      "{}: {} documents and {} tokens, but the saved position is in a corpus of {} and {}; use "
      "that "
      "corpus, or start a new run",
      corpus.path().string(), corpus.num_documents(), corpus.num_tokens(), documents, tokens));
}

ExamplePosition parse_position(const std::string& text, const ExampleStream& stream,
                               uint64_t seed) {
  try {
    const auto json = nlohmann::json::parse(text);
    if (const int version = json.at("version").get<int>(); version != kPositionVersion)
      throw InputError(format("data position: version {}, this program reads version {}", version,
                              kPositionVersion));
    if (const auto saved = json.at("seed").get<uint64_t>(); saved != seed)
      log_warn(
          "[data] the position was saved with seed {}, now it is {}: another order of examples",
          saved, seed);
    const auto& corpora = json.at("corpora");
    if (corpora.size() != stream.sources().size())
      throw InputError(
          format("data position: saved with {} training corpora, the recipe has {}; use the recipe "
                 "of that "
                 "run, or start a new one",
                 corpora.size(), stream.sources().size()));
    ExamplePosition position{json.at("example").get<uint64_t>(), {}};
    for (size_t i = 0; i < corpora.size(); ++i) {
      check_corpus(corpora[i], stream.sources()[i].segments.corpus());
      position.corpora.push_back(
          {corpora[i].at("group").get<uint64_t>(), corpora[i].at("offset").get<uint64_t>()});
    }
    return position;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(format("data position: not readable ({}): '{}'", error.what(), text));
  }
}

}  // namespace

class BatchSource::Impl {
 public:
  Impl(const DataConfig& config, const Vocabulary& vocabulary, uint64_t seed)
      : seed_(seed),
        assembler_(training_stream(config, vocabulary, RandomKey{seed}.fold("data")), config),
        position_(assembler_.position()) {}

  Batch next() {
    if (!prefetcher_) prefetcher_.emplace([this] { return make_batch(); }, kBatchesAhead);
    Made made = prefetcher_->take();
    position_ = std::move(made.position_after);
    return std::move(made.batch);
  }

  std::string position() const { return position_text(position_, assembler_.stream(), seed_); }

  void restore(const std::string& text) {
    ExamplePosition position = parse_position(text, assembler_.stream(), seed_);
    prefetcher_.reset();
    assembler_.restore(position);
    position_ = std::move(position);
  }

 private:
  struct Made {
    Batch batch;
    ExamplePosition position_after;
  };
  Made make_batch() {
    const BackgroundScope scope("make a batch");
    std::optional<Batch> batch = assembler_.next();
    STMOE_CHECK(batch, "the training stream has ended");
    return {std::move(*batch), assembler_.position()};
  }

  uint64_t seed_;
  BatchAssembler assembler_;  // belongs to the prefetcher's thread while that runs
  ExamplePosition position_;
  std::optional<Prefetcher<Made>> prefetcher_;
};

BatchSource::BatchSource(const DataConfig& config, const Vocabulary& vocabulary, uint64_t seed)
    : impl_(std::make_unique<Impl>(config, vocabulary, seed)) {}
BatchSource::~BatchSource() = default;
BatchSource::BatchSource(BatchSource&&) noexcept = default;
BatchSource& BatchSource::operator=(BatchSource&&) noexcept = default;

Batch BatchSource::next() { return impl_->next(); }
std::string BatchSource::position() const { return impl_->position(); }
void BatchSource::restore(const std::string& position) { impl_->restore(position); }

class ValidationSource::Impl {
 public:
  Impl(const DataConfig& config, const Vocabulary& vocabulary, const Path& corpus,
       int64_t num_batches)
      : assembler_(validation_stream(config, vocabulary, corpus), config),
        first_(assembler_.position()),
        num_batches_(num_batches) {}

  std::optional<Batch> next() {
    if (num_batches_ > 0 && given_ == num_batches_) return std::nullopt;
    ++given_;
    return assembler_.next();
  }
  void rewind() {
    assembler_.restore(first_);
    given_ = 0;
  }

 private:
  BatchAssembler assembler_;
  ExamplePosition first_;
  int64_t num_batches_, given_ = 0;
};

ValidationSource::ValidationSource(const DataConfig& config, const Vocabulary& vocabulary,
                                   const Path& corpus, int64_t num_batches)
    : impl_(std::make_unique<Impl>(config, vocabulary, corpus, num_batches)) {}
ValidationSource::~ValidationSource() = default;
ValidationSource::ValidationSource(ValidationSource&&) noexcept = default;
ValidationSource& ValidationSource::operator=(ValidationSource&&) noexcept = default;

std::optional<Batch> ValidationSource::next() { return impl_->next(); }
void ValidationSource::rewind() { impl_->rewind(); }

}  // namespace stmoe
