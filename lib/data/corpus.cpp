// SPDX-License-Identifier: Apache-2.0
#include "lib/data/corpus.h"

#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr std::string_view kFormat = "stmoe packed corpus";
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kTokensPerChunk = 1 << 15;
constexpr int64_t kEndsPerChunk = 1 << 13;

Hdf5File open_corpus_file(const Path& path) {
  std::error_code code;
  if (!std::filesystem::exists(path, code))
    throw InputError(
        format("{}: the corpus does not exist; pack one with stmoe-data corpus", path.string()));
  Hdf5File file = Hdf5File::open(path);
  if (!file.has_attribute("format") || file.string_attribute("format") != kFormat)
    throw InputError(
        format("{}: an HDF5 file, but not a packed corpus; expected one made by stmoe-data corpus",
               path.string()));
  const int64_t version = file.integer_attribute("format_version");
  if (version != kFormatVersion)
    throw InputError(
        format("{}: corpus format version {}, this program reads version {}; pack the text again",
               path.string(), version, kFormatVersion));
  return file;
}

Path temporary_path(const Path& path) {
  Path temporary = path;
  temporary += format(".partial-{}", ::getpid());
  return temporary;
}

Hdf5Layout extendible(int64_t chunk) {
  Hdf5Layout layout;
  layout.chunk = {chunk};
  layout.is_extendible = true;
  return layout;
}

}  // namespace

Corpus Corpus::open(const Path& path) { return Corpus(open_corpus_file(path)); }

Corpus::Corpus(Hdf5File file)
    : file_(std::move(file)),
      tokens_(file_.dataset("tokens")),
      document_ends_(file_.dataset("document_ends")),
      num_documents_(static_cast<uint64_t>(document_ends_.num_rows())),
      num_tokens_(static_cast<uint64_t>(tokens_.num_rows())),
      text_bytes_(static_cast<uint64_t>(file_.integer_attribute("text_bytes"))),
      vocabulary_name_(file_.string_attribute("vocabulary_name")),
      vocabulary_hash_(file_.string_attribute("vocabulary_hash")),
      vocabulary_size_(file_.integer_attribute("vocabulary_size")) {
  check_sizes();
}

void Corpus::check_sizes() const {
  const std::string name = path().string();
  const bool has_types =
      document_ends_.type() == ElementType::u64 && document_ends_.shape().size() == 1 &&
      (tokens_.type() == ElementType::u16 || tokens_.type() == ElementType::u32) &&
      tokens_.shape().size() == 1;
  if (!has_types)
    throw InputError(
        format("{}: /tokens must be uint16 or uint32 and /document_ends uint64, both "
               "with one dimension; pack the text again",
               name));
  const auto documents = static_cast<uint64_t>(file_.integer_attribute("num_documents"));
  const auto tokens = static_cast<uint64_t>(file_.integer_attribute("num_tokens"));
  if (documents != num_documents_ || tokens != num_tokens_)
    throw InputError(
        format("{}: {} documents and {} tokens, but its attributes say {} and {}; "
               "pack the text again",
               name, num_documents_, num_tokens_, documents, tokens));
  if (num_documents_ == 0 || num_tokens_ == 0)
    throw InputError(format("{}: the corpus is empty; pack some text", name));
  const uint64_t last = document_ends(num_documents_ - 1, 1).front();
  if (last != num_tokens_)
    throw InputError(format("{}: the last document ends at token {} of {}; pack the text again",
                            name, last, num_tokens_));
}

void Corpus::check_vocabulary(const Vocabulary& vocabulary) const {
  if (vocabulary.hash() == vocabulary_hash_) return;
  throw InputError(
      format("{}: made with another vocabulary: {} ({} ids, hash {}), the recipe's is {} ({} ids, "
             "hash {}); use that vocabulary or pack the text again",
             path().string(), vocabulary_name_, vocabulary_size_, vocabulary_hash_,
             vocabulary.name(), vocabulary.size(), vocabulary.hash()));
}

Corpus::Range Corpus::document(uint64_t index) const {
  STMOE_CHECK(index < num_documents_, "corpus: document {} of {}", index, num_documents_);
  const auto ends = index == 0 ? document_ends(0, 1) : document_ends(index - 1, 2);
  const Range range{index == 0 ? 0 : ends.front(), ends.back()};
  if (range.begin > range.end || range.end > num_tokens_)
    throw InputError(
        format("{}: document_ends: document {} covers tokens {} to {} of {}; the file "
               "is damaged, pack the text again",
               path().string(), index, range.begin, range.end, num_tokens_));
  return range;
}

std::vector<uint64_t> Corpus::document_ends(uint64_t first, uint64_t count) const {
  std::vector<uint64_t> ends(count);
  document_ends_.read_rows(static_cast<int64_t>(first), ends);
  return ends;
}

template <class T>
void Corpus::read_as(Range range, std::vector<int32_t>& tokens) const {
  std::vector<T> stored(range.size());
  tokens_.read_rows(static_cast<int64_t>(range.begin), stored);
  const size_t before = tokens.size();
  tokens.resize(before + stored.size());
  uint32_t largest = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    largest = std::max<uint32_t>(largest, stored[i]);
    tokens[before + i] = static_cast<int32_t>(stored[i]);
  }
  if (largest >= vocabulary_size_)
    throw InputError(
        format("{}: tokens: id {} between tokens {} and {}, the vocabulary has {}; "
               "the file is damaged, pack the text again",
               path().string(), largest, range.begin, range.end, vocabulary_size_));
}

void Corpus::read(Range range, std::vector<int32_t>& tokens) const {
  STMOE_CHECK(range.begin <= range.end && range.end <= num_tokens_);
  if (range.size() == 0) return;
  if (tokens_.type() == ElementType::u16)
    read_as<uint16_t>(range, tokens);
  else
    read_as<uint32_t>(range, tokens);
}

CorpusWriter::CorpusWriter(const Path& path, const Vocabulary& vocabulary, const Path& temporary)
    : path_(path),
      temporary_(temporary.empty() ? temporary_path(path) : temporary),
      file_(Hdf5File::create(temporary_)),
      tokens_(file_.create_dataset("tokens",
                                   vocabulary.size() > 65536 ? ElementType::u32 : ElementType::u16,
                                   {0}, extendible(kTokensPerChunk))),
      document_ends_(
          file_.create_dataset("document_ends", ElementType::u64, {0}, extendible(kEndsPerChunk))),
      is_wide_(vocabulary.size() > 65536),
      vocabulary_size_(vocabulary.size()) {
  file_.set_attribute("format", kFormat);
  file_.set_attribute("format_version", kFormatVersion);
  file_.set_attribute("vocabulary_name", vocabulary.name());
  file_.set_attribute("vocabulary_size", vocabulary.size());
  file_.set_attribute("vocabulary_hash", vocabulary.hash());
}

CorpusWriter::~CorpusWriter() {
  if (is_finished_) return;
  file_.abandon();
  ::unlink(temporary_.c_str());
}

void CorpusWriter::append(std::span<const int32_t> tokens, uint64_t text_bytes) {
  STMOE_CHECK(!tokens.empty(), "corpus: a document without tokens");
  for (int32_t token : tokens) {
    STMOE_CHECK(token >= 0 && token < vocabulary_size_, "corpus: id {} of {}", token,
                vocabulary_size_);
    if (is_wide_)
      wide_.push_back(static_cast<uint32_t>(token));
    else
      narrow_.push_back(static_cast<uint16_t>(token));
  }
  num_tokens_ += tokens.size();
  text_bytes_ += text_bytes;
  ++num_documents_;
  ends_.push_back(num_tokens_);
  if (narrow_.size() + wide_.size() >= 8 * kTokensPerChunk) flush_tokens();
  if (ends_.size() >= kEndsPerChunk) flush_ends();
}

void CorpusWriter::flush_tokens() {
  if (is_wide_)
    tokens_.append(wide_);
  else
    tokens_.append(narrow_);
  wide_.clear();
  narrow_.clear();
}

void CorpusWriter::flush_ends() {
  document_ends_.append(ends_);
  ends_.clear();
}

void CorpusWriter::finish() {
  if (num_documents_ == 0)
    throw InputError(
        format("{}: not written: the input has no document with any text", path_.string()));
  flush_tokens();
  flush_ends();
  file_.set_attribute("num_documents", num_documents_);
  file_.set_attribute("num_tokens", num_tokens_);
  file_.set_attribute("text_bytes", text_bytes_);
  file_.close();
  sync_to_disk(temporary_);
  rename_durably(temporary_, path_);
  is_finished_ = true;
}

}  // namespace stmoe
