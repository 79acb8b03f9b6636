// SPDX-License-Identifier: Apache-2.0
// What packing counted: kept in the work folder file by file, added up for the report.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "data_tools/corpus/c4_cleaner.h"

namespace stmoe {

struct CorpusCounts {
  uint64_t input_bytes = 0;  // unpacked
  uint64_t documents = 0, tokens = 0, text_bytes = 0;
  // Documents left out.
  uint64_t blank = 0, invalid_utf8 = 0, without_tokens = 0, duplicate = 0;
  std::array<uint64_t, 6> pages{};  // by PageFate, [kept] unused
  // Lines by LineFate; [kept] counts those in kept and dropped pages alike.
  std::array<uint64_t, 6> lines{};

  // Calls f(name, number) for every number, in the order of the report.
  template <class Counts, class F>
  static void each(Counts& counts, F&& f) {
    f("input_bytes", counts.input_bytes);
    f("documents", counts.documents);
    f("tokens", counts.tokens);
    f("text_bytes", counts.text_bytes);
    f("dropped_blank", counts.blank);
    f("dropped_invalid_utf8", counts.invalid_utf8);
    f("dropped_without_tokens", counts.without_tokens);
    f("dropped_duplicate", counts.duplicate);
    static constexpr std::array<const char*, 6> kPages = {"",
                                                          "dropped_too_long",
                                                          "dropped_lorem_ipsum",
                                                          "dropped_brace",
                                                          "dropped_too_few_sentences",
                                                          "dropped_bad_word"};
    static constexpr std::array<const char*, 6> kLines = {"lines_kept",        "lines_long_word",
                                                          "lines_no_end_mark", "lines_too_short",
                                                          "lines_javascript",  "lines_policy"};
    for (size_t i = 1; i < kPages.size(); ++i) f(kPages[i], counts.pages[i]);
    for (size_t i = 0; i < kLines.size(); ++i) f(kLines[i], counts.lines[i]);
  }
  CorpusCounts& operator+=(const CorpusCounts& other);

  std::string to_json() const;
  // Throws InputError naming `origin`.
  static CorpusCounts from_json(std::string_view text, const std::string& origin);
};

// The table that ends a run: sizes, what was left out and why, speed.
std::string report_table(const CorpusCounts& counts, const CorpusCounts& this_run, double seconds);

}  // namespace stmoe
