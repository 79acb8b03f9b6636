// SPDX-License-Identifier: Apache-2.0
// Packed corpora: HDF5 files of tokenised documents.
//   /tokens          uint16 (uint32 when the vocabulary has more than 65536 ids): all documents,
//   without EOS /document_ends   uint64: document i is tokens [ends[i - 1], ends[i]) attributes
//   format "stmoe packed corpus", format_version, vocabulary_name, vocabulary_size (pieces +
//   sentinels),
//                    vocabulary_hash, num_documents, num_tokens, text_bytes (of the documents'
//                    text, UTF-8)
// Chunks carry checksums, which reading verifies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/files.h"
#include "lib/data/vocabulary.h"
#include "lib/hdf5/file.h"

namespace stmoe {

// Reads documents in any order. Not for use by two threads at once; each may open its own.
class Corpus {
 public:
  // Throws InputError: missing, not HDF5, truncated, not a packed corpus, another format version,
  // or empty.
  static Corpus open(const Path& path);

  // Throws InputError naming both vocabularies when the corpus was made with another one.
  void check_vocabulary(const Vocabulary& vocabulary) const;

  const Path& path() const { return file_.path(); }
  uint64_t num_documents() const { return num_documents_; }
  uint64_t num_tokens() const { return num_tokens_; }
  uint64_t text_bytes() const { return text_bytes_; }
  const std::string& vocabulary_name() const { return vocabulary_name_; }
  const std::string& vocabulary_hash() const { return vocabulary_hash_; }
  int64_t vocabulary_size() const { return vocabulary_size_; }

  struct Range {
    uint64_t begin = 0, end = 0;
    uint64_t size() const { return end - begin; }
  };
  // Where document `index` is in the token stream.
  Range document(uint64_t index) const;
  // Appends tokens [range.begin, range.end) of the stream to `tokens`. Throws InputError for
  // damaged data.
  void read(Range range, std::vector<int32_t>& tokens) const;
  // Ends of documents [first, first + count).
  std::vector<uint64_t> document_ends(uint64_t first, uint64_t count) const;

 private:
  explicit Corpus(Hdf5File file);
  void check_sizes() const;
  template <class T>
  void read_as(Range range, std::vector<int32_t>& tokens) const;

  Hdf5File file_;
  Hdf5Dataset tokens_, document_ends_;
  uint64_t num_documents_ = 0, num_tokens_ = 0, text_bytes_ = 0;
  std::string vocabulary_name_, vocabulary_hash_;
  int64_t vocabulary_size_ = 0;
};

// Writes a corpus under a temporary name beside `path`; finish() puts it in place. Without finish()
// nothing remains.
class CorpusWriter {
 public:
  // `temporary`, when given, is that name; it must be on the same file system.
  CorpusWriter(const Path& path, const Vocabulary& vocabulary, const Path& temporary = {});
  ~CorpusWriter();
  CorpusWriter(const CorpusWriter&) = delete;
  CorpusWriter& operator=(const CorpusWriter&) = delete;

  // Adds a document; one without tokens is a BugError.
  void append(std::span<const int32_t> tokens, uint64_t text_bytes);
  uint64_t num_documents() const { return num_documents_; }
  uint64_t num_tokens() const { return num_tokens_; }
  uint64_t text_bytes() const { return text_bytes_; }
  // Flushes everything to disk and renames. Throws InputError when there is no document.
  void finish();

 private:
  void flush_tokens();
  void flush_ends();

  Path path_, temporary_;
  Hdf5File file_;
  Hdf5Dataset tokens_, document_ends_;
  bool is_wide_;
  int64_t vocabulary_size_;
  std::vector<uint16_t> narrow_;
  std::vector<uint32_t> wide_;
  std::vector<uint64_t> ends_;
  uint64_t num_documents_ = 0, num_tokens_ = 0, text_bytes_ = 0;
  bool is_finished_ = false;
};

}  // namespace stmoe
