// SPDX-License-Identifier: Apache-2.0
// SentencePiece vocabularies with T5's conventions: pad 0, eos 1, unk 2, and 100 sentinels above
// the pieces, numbered downwards: <extra_id_0> is size() - 1. As in seqio (vocabularies.py,
// extra_ids = 100), the sentinels are not in the model file. Embedding tables have padded_size()
// rows: 32000 pieces give size 32100 and 32128 rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

inline constexpr int32_t kPadId = 0, kEosId = 1, kUnkId = 2;
inline constexpr int kNumSentinels = 100;

// Immutable; copies share the model. All members may be called by several threads at once.
class Vocabulary {
 public:
  // Throws InputError when the file is missing, is no SentencePiece model, or has other pad, eos or
  // unk ids.
  static Vocabulary load(const Path& model);

  // Ids of the text, without eos. "<extra_id_7>" in the text is ordinary characters ...
  std::vector<int32_t> encode(std::string_view text) const;
  // ... or, here, the sentinel, and text right after it goes on without a blank ("." and not "▁.").
  std::vector<int32_t> encode_with_sentinels(std::string_view text) const;
  // Pad and eos give nothing, sentinels "<extra_id_N>", ids outside the vocabulary what unk gives.
  std::string decode(std::span<const int32_t> ids) const;
  // The piece as written in the model ("▁the"); a sentinel's or an out-of-range id's text
  // otherwise.
  std::string piece(int32_t id) const;

  int64_t num_pieces() const;
  int64_t size() const { return num_pieces() + kNumSentinels; }
  // size() up to a multiple of 128: rows of the embedding.
  int64_t padded_size() const { return (size() + 127) / 128 * 128; }
  // Sentinel i in [0, 100): size() - 1 - i.
  int32_t sentinel(int i) const;
  // Number of the sentinel, or -1.
  int sentinel_number(int32_t id) const;

  // XXH3-128 of the model file, 32 hexadecimal digits: what corpora and checkpoints are checked
  // against.
  const std::string& hash() const;
  // The model's file name without its directories.
  const std::string& name() const;

 private:
  class Impl;
  explicit Vocabulary(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace stmoe
