// SPDX-License-Identifier: Apache-2.0
// What a worker does with a block of text: parse, clean, tokenise, hash.
#pragma once

#include <optional>
#include <vector>

#include "data_tools/corpus/counts.h"
#include "data_tools/input/document_parser.h"
#include "lib/base/checksum.h"
#include "lib/data/vocabulary.h"

namespace stmoe {

struct TokenizedBlock {
  struct Document {
    size_t num_tokens;
    uint64_t text_bytes;
    Hash128 hash;
  };
  std::vector<Document> documents;
  std::vector<int32_t> tokens;  // of all documents
  CorpusCounts counts;
};

// Immutable: all workers share one.
class BlockTokenizer {
 public:
  BlockTokenizer(Vocabulary vocabulary, InputSettings settings, std::optional<C4Cleaner> cleaner)
      : vocabulary_(std::move(vocabulary)),
        settings_(std::move(settings)),
        cleaner_(std::move(cleaner)) {}
  // Throws InputError as parse_documents.
  TokenizedBlock run(const Path& path, const TextBlock& block) const;

 private:
  void add(std::string_view text, TokenizedBlock& result) const;

  Vocabulary vocabulary_;
  InputSettings settings_;
  std::optional<C4Cleaner> cleaner_;
};

}  // namespace stmoe
