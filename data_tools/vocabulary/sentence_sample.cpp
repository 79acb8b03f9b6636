// SPDX-License-Identifier: Apache-2.0
#include "data_tools/vocabulary/sentence_sample.h"

#include <algorithm>

#include "lib/base/random.h"

namespace stmoe {

void SentenceSample::add_document(std::string_view text) {
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    if (end > kLongestSentence) {
      const size_t blank = text.rfind(' ', kLongestSentence);
      end = blank != std::string_view::npos && blank > 0 ? blank : end;
    }
    add(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void SentenceSample::add(std::string_view sentence) {
  if (sentence.find_first_not_of(" \t\r") == std::string_view::npos) return;
  static constexpr RandomKey kKey{0x5EED};
  const auto bits = philox4x32(kKey, num_seen_);
  kept_.push({uint64_t{bits[0]} << 32 | bits[1], num_seen_, std::string(sentence)});
  ++num_seen_;
  bytes_seen_ += sentence.size();
  bytes_ += sentence.size();
  while (bytes_ > max_bytes_ && kept_.size() > 1) {
    bytes_ -= kept_.top().text.size();
    kept_.pop();
  }
}

std::vector<std::string> SentenceSample::take() {
  std::vector<Sentence> sentences;
  for (; !kept_.empty(); kept_.pop()) sentences.push_back(kept_.top());
  std::sort(sentences.begin(), sentences.end(),
            [](const Sentence& a, const Sentence& b) { return a.number < b.number; });
  std::vector<std::string> texts;
  for (Sentence& sentence : sentences) texts.push_back(std::move(sentence.text));
  bytes_ = 0;
  return texts;
}

}  // namespace stmoe
