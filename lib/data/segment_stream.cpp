// SPDX-License-Identifier: Apache-2.0
#include "lib/data/segment_stream.h"

#include <algorithm>

#include "lib/base/error.h"

namespace stmoe {

SegmentStream::SegmentStream(Corpus corpus, RandomKey key, int64_t raw_length, Length length)
    : corpus_(std::move(corpus)),
      order_key_(key.fold("order")),
      chunk_key_(key.fold("chunk")),
      raw_length_(static_cast<uint64_t>(raw_length)),
      num_groups_(length == Length::endless
                      ? UINT64_MAX
                      : (corpus_.num_documents() + kDocumentsPerGroup - 1) / kDocumentsPerGroup) {
  STMOE_CHECK(raw_length > 0, "segments of {} tokens", raw_length);
}

bool SegmentStream::next(std::vector<int32_t>& segment) {
  while (position_.group < num_groups_) {
    if (loaded_group_ != position_.group) load_group(position_.group);
    if (position_.offset < group_tokens_.size()) {
      const auto begin = group_tokens_.begin() + static_cast<std::ptrdiff_t>(position_.offset);
      const uint64_t count = std::min(raw_length_, group_tokens_.size() - position_.offset);
      segment.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
      position_.offset += count;
      return true;
    }
    position_ = {position_.group + 1, 0};
  }
  return false;
}

void SegmentStream::load_group(uint64_t group) {
  loaded_group_.reset();
  group_tokens_.clear();
  const uint64_t first = group * kDocumentsPerGroup;
  uint64_t end = first + kDocumentsPerGroup;
  if (num_groups_ != UINT64_MAX) end = std::min(end, corpus_.num_documents());
  for (uint64_t draw = first; draw < end; ++draw) append_document(draw);
  loaded_group_ = group;
}

void SegmentStream::append_document(uint64_t draw) {
  const uint64_t epoch = draw / corpus_.num_documents();
  const Permutation order(corpus_.num_documents(), order_key_.fold(epoch));
  Corpus::Range range = corpus_.document(order(draw % corpus_.num_documents()));
  if (range.size() > kLongestChunk) {
    const uint64_t num_chunks = (range.size() + kLongestChunk - 1) / kLongestChunk;
    const uint64_t chunk = RandomStream(chunk_key_.fold(draw)).below(num_chunks);
    range.begin += chunk * kLongestChunk;
    range.end = std::min(range.end, range.begin + kLongestChunk);
  }
  corpus_.read(range, group_tokens_);
}

}  // namespace stmoe
