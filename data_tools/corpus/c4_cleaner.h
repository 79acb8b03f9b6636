// SPDX-License-Identifier: Apache-2.0
// C4's rules for pages and lines of English text, as in tensorflow_datasets/text/c4_utils.py
// (4.9.10: is_valid_length, clean_page, the bad-word filter). A page over 190,000 characters is
// dropped; then line by line, in this order:
//   a word over 1000 characters: the line goes; citation marks ([1], [edit], [citation needed]) are
//   cut out; no end mark (. ? ! ") or an ellipsis at its end: the line goes; under 5 words: the
//   line goes; "lorem ipsum": the page goes; "javascript": the line goes; a brace {: the page goes;
//   a policy phrase (terms of use, privacy policy, cookies): the line goes;
// a page with fewer than 3 sentences left goes, and one with a bad word between non-word
// characters. (5 words and 3 sentences are the numbers of the code and of the T5 paper's final
// version.) Differences: sentences are counted by end marks where the original runs NLTK's Punkt;
// lower case is ASCII's. Language detection and duplicate lines between pages are not part of it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stmoe {

enum class PageFate { kept, too_long, lorem_ipsum, brace, too_few_sentences, bad_word };
enum class LineFate { kept, long_word, no_end_mark, too_few_words, javascript, policy };

struct CleanedPage {
  PageFate fate = PageFate::kept;
  std::string text;
  std::array<uint64_t, 6> lines{};  // by LineFate
};

class C4Cleaner {
 public:
  // `bad_words` in any case; an empty list turns that rule off.
  explicit C4Cleaner(const std::vector<std::string>& bad_words = {});
  // `page` is valid UTF-8. Safe for several threads.
  CleanedPage clean(std::string_view page) const;

 private:
  bool has_bad_word(std::string_view lower_text) const;

  std::vector<std::string> bad_words_;                   // lower case, by first byte
  std::array<std::pair<size_t, size_t>, 256> starting_;  // ranges of them by first byte
};

// Sentences of a line by its end marks: a run of . ? ! counts when blanks or the end follow it,
// perhaps after closing quotes or brackets; at least 1 for a line with any word.
int64_t count_sentences(std::string_view line);

}  // namespace stmoe
