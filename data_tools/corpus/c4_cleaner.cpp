// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/c4_cleaner.h"

#include <algorithm>

#include "lib/base/utf8.h"

namespace stmoe {
namespace {

constexpr size_t kLongestPage = 190000, kLongestWord = 1000;  // characters
constexpr int kFewestWords = 5;
constexpr int64_t kFewestSentences = 3;
constexpr std::string_view kEndMarks = ".?!\"";
constexpr std::array<std::string_view, 6> kPolicyPhrases = {"terms of use",   "privacy policy",
                                                            "cookie policy",  "uses cookies",
                                                            "use of cookies", "use cookies"};

// Python's str.isspace.
bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Where Python's str.splitlines splits.
bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

// Parts of `text` between characters for which `is_separator` holds.
template <class Separator, class Receive>
void split(std::string_view text, Separator is_separator, Receive receive) {
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character next = first_character(text.substr(at));
    if (is_separator(next.code)) {
      receive(text.substr(begin, at - begin));
      begin = at + next.bytes;
    }
    at += next.bytes;
  }
  receive(text.substr(begin));
}

std::string_view strip(std::string_view text) {
  for (;;) {
    const Utf8Character first = first_character(text);
    if (first.bytes == 0 || !is_space(first.code)) break;
    text.remove_prefix(first.bytes);
  }
  for (;;) {
    size_t last = text.size();
    while (last > 0 && (static_cast<unsigned char>(text[last - 1]) & 0xC0) == 0x80) --last;
    if (last == 0 || !is_space(first_character(text.substr(last - 1)).code)) break;
    text = text.substr(0, last - 1);
  }
  return text;
}

struct Words {
  int count = 0;
  size_t longest = 0;  // characters
};
Words measure_words(std::string_view line) {
  Words words;
  split(line, is_space, [&](std::string_view word) {
    if (word.empty()) return;
    ++words.count;
    if (word.size() > words.longest)
      words.longest = std::max(words.longest, count_characters(word));
  });
  return words;
}

// Length of "[12]", "[]", "[edit]" or "[citation needed]" at the front of `text`, or 0.
size_t citation_length(std::string_view text) {
  for (std::string_view mark : {"[edit]", "[citation needed]"})
    if (text.starts_with(mark)) return mark.size();
  const size_t end = text.find_first_not_of("0123456789", 1);
  return end != std::string_view::npos && text[end] == ']' ? end + 1 : 0;
}

std::string without_citations(std::string_view line) {
  std::string kept;
  for (size_t at = 0; at < line.size();) {
    const size_t length = line[at] == '[' ? citation_length(line.substr(at)) : 0;
    if (length == 0)
      kept += line[at++];
    else
      at += length;
  }
  return kept;
}

std::string lower_ascii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

// Python's \w, with every character beyond Latin-1 counted in but punctuation and blanks.
bool is_word_character(char32_t c) {
  if (c < 0x80)
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  if (c < 0xC0) return c == 0xAA || c == 0xB5 || c == 0xBA;
  const bool is_punctuation =
      c == 0xD7 || c == 0xF7 || (c >= 0x2000 && c <= 0x206F) || (c >= 0x3000 && c <= 0x303F);
  return !is_punctuation;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// What becomes of a stripped line; `line` is what is kept of it. A line can also decide what
// becomes of the page.
LineFate judge_line(std::string_view stripped, std::string& line, PageFate& page) {
  if (measure_words(stripped).longest > kLongestWord) return LineFate::long_word;
  line = without_citations(stripped);
  const bool has_end_mark = !line.empty() && contains(kEndMarks, std::string_view(&line.back(), 1));
  if (!has_end_mark || line.ends_with("...")) return LineFate::no_end_mark;
  if (measure_words(line).count < kFewestWords) return LineFate::too_few_words;
  const std::string lower = lower_ascii(line);
  if (contains(lower, "lorem ipsum"))
    page = PageFate::lorem_ipsum;
  else if (contains(lower, "javascript"))
    return LineFate::javascript;
  else if (contains(line, "{"))
    page = PageFate::brace;
  else if (std::any_of(kPolicyPhrases.begin(), kPolicyPhrases.end(),
                       [&](std::string_view phrase) { return contains(lower, phrase); }))
    return LineFate::policy;
  return LineFate::kept;
}

}  // namespace

int64_t count_sentences(std::string_view line) {
  static constexpr std::array<std::string_view, 6> kClosing = {"\"", "'",      ")",
                                                               "]",  "\u201d", "\u2019"};
  int64_t count = 0;
  bool has_open_text = false;  // characters after the last counted end
  for (size_t at = 0; at < line.size();) {
    if (line[at] != '.' && line[at] != '?' && line[at] != '!') {
      has_open_text |= line[at] != ' ';
      ++at;
      continue;
    }
    at = std::min(line.find_first_not_of(".?!", at), line.size());
    for (bool is_closing = true; is_closing;) {
      is_closing = false;
      for (std::string_view mark : kClosing)
        if (line.substr(at).starts_with(mark)) {
          at += mark.size();
          is_closing = true;
        }
    }
    const bool is_end = at == line.size() || is_space(first_character(line.substr(at)).code);
    if (is_end) ++count;
    has_open_text = !is_end;
  }
  return count + has_open_text;
}

C4Cleaner::C4Cleaner(const std::vector<std::string>& bad_words) {
  for (const std::string& word : bad_words)
    if (const auto stripped = strip(word); !stripped.empty())
      bad_words_.push_back(lower_ascii(stripped));
  std::sort(bad_words_.begin(), bad_words_.end(), [](const std::string& a, const std::string& b) {
    return static_cast<unsigned char>(a[0]) < static_cast<unsigned char>(b[0]);
  });
  starting_.fill({0, 0});
  for (size_t i = 0; i < bad_words_.size(); ++i) {
    auto& range = starting_[static_cast<unsigned char>(bad_words_[i][0])];
    if (range.second == 0) range.first = i;
    range.second = i + 1;
  }
}

// The original's (?:\W|^)(word|...)(?:\W|$).
bool C4Cleaner::has_bad_word(std::string_view lower_text) const {
  if (bad_words_.empty()) return false;
  bool is_after_word = false;  // the character before `at` is a word character
  for (size_t at = 0; at < lower_text.size();) {
    const auto [first, end] = starting_[static_cast<unsigned char>(lower_text[at])];
    for (size_t i = first; i < end && !is_after_word; ++i) {
      if (!lower_text.substr(at).starts_with(bad_words_[i])) continue;
      const auto after = first_character(lower_text.substr(at + bad_words_[i].size()));
      if (after.bytes == 0 || !is_word_character(after.code)) return true;
    }
    const Utf8Character here = first_character(lower_text.substr(at));
    is_after_word = is_word_character(here.code);
    at += here.bytes;
  }
  return false;
}

CleanedPage C4Cleaner::clean(std::string_view page) const {
  CleanedPage result;
  if (page.size() > kLongestPage && count_characters(page) > kLongestPage) {
    result.fate = PageFate::too_long;
    return result;
  }
  int64_t num_sentences = 0;
  split(page, is_line_end, [&](std::string_view raw_line) {
    if (result.fate != PageFate::kept || raw_line.empty()) return;
    std::string line;
    const LineFate fate = judge_line(strip(raw_line), line, result.fate);
    if (result.fate != PageFate::kept) return;
    ++result.lines[static_cast<size_t>(fate)];
    if (fate != LineFate::kept) return;
    num_sentences += count_sentences(line);
    if (!result.text.empty()) result.text += '\n';
    result.text += line;
  });
  if (result.fate == PageFate::kept && num_sentences < kFewestSentences)
    result.fate = PageFate::too_few_sentences;
  if (result.fate == PageFate::kept && has_bad_word(lower_ascii(result.text)))
    result.fate = PageFate::bad_word;
  if (result.fate != PageFate::kept)
    result.text.clear();
  else
    result.text = std::string(strip(result.text));
  return result;
}

}  // namespace stmoe
