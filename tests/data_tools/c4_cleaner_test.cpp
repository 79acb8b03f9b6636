// SPDX-License-Identifier: Apache-2.0
// Against tests/golden/c4_cleaning.json, made with tensorflow_datasets
// (scripts/golden/c4_cleaning.py).
#include "data_tools/corpus/c4_cleaner.h"

#include <nlohmann/json.hpp>

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

// The original's names of our counters.
const std::vector<std::pair<PageFate, std::string>> kPages = {
    {PageFate::lorem_ipsum, "filtered:loremipsum"},
    {PageFate::brace, "filtered:squigglybracket"},
    {PageFate::too_few_sentences, "filtered:too_few_sentences"},
    {PageFate::bad_word, "bad_word"}};
const std::vector<std::pair<LineFate, std::string>> kLines = {
    {LineFate::kept, "line-passed"},
    {LineFate::long_word, "line-filtered:too_long_word"},
    {LineFate::no_end_mark, "line-filtered:no_endmark"},
    {LineFate::too_few_words, "line-filtered:too_short"},
    {LineFate::javascript, "line-filtered:javascript"},
    {LineFate::policy, "line-filtered:policy"}};

}  // namespace

TEST_CASE("pages are cleaned as C4's published code cleans them", "[data_tools][c4]") {
  const auto golden =
      nlohmann::json::parse(read_file(source_file("tests/golden/c4_cleaning.json")));
  const C4Cleaner cleaner(golden["bad_words"].get<std::vector<std::string>>());
  REQUIRE(golden["pages"].size() > 70);
  for (const auto& page : golden["pages"]) {
    const auto text = page["text"].get<std::string>();
    INFO("page: " << text);
    const CleanedPage cleaned = cleaner.clean(text);
    if (page["kept"].is_null()) {
      CHECK(cleaned.fate != PageFate::kept);
      CHECK(cleaned.text.empty());
    } else {
      CHECK(cleaned.fate == PageFate::kept);
      CHECK(cleaned.text == page["kept"].get<std::string>());
    }
    const auto& counters = page["counters"];
    for (const auto& [fate, name] : kPages) {
      INFO(name);
      CHECK((cleaned.fate == fate) == counters.contains(name));
    }
    for (const auto& [fate, name] : kLines) {
      INFO(name);
      CHECK(cleaned.lines[static_cast<size_t>(fate)] == counters.value(name, 0u));
    }
  }
}

TEST_CASE("a page may have 190,000 characters", "[data_tools][c4]") {
  std::string page;
  while (page.size() + 27 <= 190000)
    page += "Words fill this line hére. ";  // 27 characters, 28 bytes
  const std::string accents = page;
  CHECK(C4Cleaner().clean(accents).fate == PageFate::kept);
  CHECK(C4Cleaner().clean(std::string(190000, 'x')).fate == PageFate::too_few_sentences);
  CHECK(C4Cleaner().clean(std::string(190001, 'x')).fate == PageFate::too_long);
}

TEST_CASE("sentences are counted by their end marks", "[data_tools][c4]") {
  CHECK(count_sentences("") == 0);
  CHECK(count_sentences("no end mark") == 1);
  CHECK(count_sentences("One. Two! Three?") == 3);
  CHECK(count_sentences("He said \"stop.\" Then (he left.) Gone.") == 3);
  CHECK(count_sentences("“Stop.” Then he left.") == 2);
  CHECK(count_sentences("Version 1.2.3 of www.example.com is out.") == 1);
  CHECK(count_sentences("What?! Really...") == 2);
  CHECK(count_sentences("three sentences...but it's actually just 1.") == 1);
}
