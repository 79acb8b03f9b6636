// SPDX-License-Identifier: Apache-2.0
// A random sample of the sentences of a text, of a given size, in their order: every sentence has a
// random priority (a function of its number), and the highest stay. The same text and size give the
// same sample.
#pragma once

#include <cstdint>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

namespace stmoe {

class SentenceSample {
 public:
  explicit SentenceSample(uint64_t max_bytes) : max_bytes_(max_bytes) {}

  // Adds a document's lines; long ones are cut between words into pieces that SentencePiece takes.
  void add_document(std::string_view text);
  // The sample, in the order of the text. The object is empty afterwards.
  std::vector<std::string> take();

  uint64_t num_sentences_seen() const { return num_seen_; }
  uint64_t bytes_seen() const { return bytes_seen_; }
  static constexpr size_t kLongestSentence = 4000;  // bytes; SentencePiece's limit is 4192

 private:
  void add(std::string_view sentence);

  struct Sentence {
    uint64_t priority, number;
    std::string text;
    bool operator<(const Sentence& other) const { return priority < other.priority; }
  };
  uint64_t max_bytes_, bytes_ = 0, bytes_seen_ = 0, num_seen_ = 0;
  std::priority_queue<Sentence> kept_;  // the one to go next on top
};

}  // namespace stmoe
