// SPDX-License-Identifier: Apache-2.0
// Segments of one corpus in random order, as T5's pretraining pipeline makes them
// (t5/data/preprocessors.py):
//   documents in a new random order each epoch, each once
//   of a document longer than 65536 tokens one aligned chunk of that many, at random
//   (select_random_chunk) 128 documents in a row concatenated (reduce_concat_tokens), groups
//   running on over the end of an epoch cut into segments of `raw_length` tokens; the last of a
//   group may be shorter (split_tokens)
// What a segment holds is a function of the key and its position alone.
#pragma once

#include <optional>

#include "lib/base/random.h"
#include "lib/data/corpus.h"
#include "lib/data/permutation.h"

namespace stmoe {

inline constexpr uint64_t kLongestChunk = 65536;
inline constexpr uint64_t kDocumentsPerGroup = 128;

struct SegmentPosition {
  uint64_t group = 0;   // of 128 documents, counted from the first epoch on
  uint64_t offset = 0;  // tokens of the group already given out
  bool operator==(const SegmentPosition&) const = default;
};

class SegmentStream {
 public:
  enum class Length { endless, one_epoch };
  SegmentStream(Corpus corpus, RandomKey key, int64_t raw_length, Length length);

  // Replaces `segment` by the next one; false, once everything was given out, from a stream of one
  // epoch.
  bool next(std::vector<int32_t>& segment);

  SegmentPosition position() const { return position_; }
  void restore(SegmentPosition position) { position_ = position; }
  const Corpus& corpus() const { return corpus_; }

 private:
  void load_group(uint64_t group);
  // Appends what is used of the `draw`-th document drawn since the beginning.
  void append_document(uint64_t draw);

  Corpus corpus_;
  RandomKey order_key_, chunk_key_;
  uint64_t raw_length_, num_groups_;  // UINT64_MAX groups: endless
  SegmentPosition position_;
  std::optional<uint64_t> loaded_group_;
  std::vector<int32_t> group_tokens_;
};

}  // namespace stmoe
