// SPDX-License-Identifier: Apache-2.0
#include "data_tools/input/document_parser.h"

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

struct Parsed {
  std::vector<std::string> documents;
  ParseCounts counts;
};

Parsed parse(const std::string& text, const std::string& name, InputSettings settings = {}) {
  TextBlock block;
  block.text = text;
  block.first_line = 10;
  block.byte_offset = 500;
  Parsed parsed;
  parsed.counts = parse_documents(name, block, settings, [&](std::string_view document) {
    parsed.documents.emplace_back(document);
  });
  return parsed;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("the format follows the name, unless it is given", "[data_tools][parser]") {
  InputSettings settings;
  for (const char* name :
       {"a.json", "a.jsonl", "a.ndjson", "b/c4-train.00000-of-01024.json.gz", "x.jsonl.zst"})
    CHECK(settings.format_of(name) == TextFormat::json_lines);
  for (const char* name : {"a.txt", "a", "a.gz", "json", "a.json.txt.zst"})
    CHECK(settings.format_of(name) == TextFormat::lines);
  settings.format = "paragraphs";
  CHECK(settings.format_of("a.json") == TextFormat::paragraphs);
  settings.format = "json";
  CHECK(settings.format_of("a.txt") == TextFormat::json_lines);
  settings.format = "lines";
  CHECK(settings.format_of("a.json") == TextFormat::lines);
}

TEST_CASE("a line is a document, blank ones are counted", "[data_tools][parser]") {
  const Parsed parsed = parse("one\r\n\n  two \n\t\nthree", "a.txt");
  CHECK(parsed.documents == Texts{"one", "  two ", "three"});
  CHECK(parsed.counts.blank == 2);
}

TEST_CASE("blank lines part documents of several lines", "[data_tools][parser]") {
  InputSettings settings;
  settings.format = "paragraphs";
  const Parsed parsed = parse("\n\none\ntwo\n \nthree\r\n\r\n\r\nfour\nfive", "a.txt", settings);
  CHECK(parsed.documents == Texts{"one\ntwo", "three", "four\nfive"});
  CHECK(parsed.counts.blank == 0);
}

TEST_CASE("JSON lines give the text of their key", "[data_tools][parser]") {
  const std::string text = R"({"text": "one\ntwo \u00e9 \ud83d\ude42", "url": "u"})"
                           "\n\n"
                           R"({"url": "u", "text": ""})"
                           "\n"
                           R"({"text": "last"})";
  const Parsed parsed = parse(text, "a.jsonl");
  CHECK(parsed.documents == Texts{"one\ntwo é 🙂", "last"});
  CHECK(parsed.counts.blank == 2);
  InputSettings settings;
  settings.key = "body";
  CHECK(parse(R"({"body": "x"})", "a.jsonl", settings).documents == Texts{"x"});
}

TEST_CASE("bad JSON is refused with file and line", "[data_tools][parser]") {
  auto refused = [](const std::string& line, const std::vector<std::string>& parts) {
    std::vector<std::string> all = parts;
    all.push_back("a.jsonl:11:");  // after one good line
    require_error(ExitCode::input, all, [&] { parse("{\"text\": \"good\"}\n" + line, "a.jsonl"); });
  };
  refused("{\"text\": \"cut", {"invalid JSON", "character"});
  refused("plain text\n", {"invalid JSON", "character 1", "--format"});
  refused("{\"text\": \"\\ud800\"}", {"invalid JSON"});
  refused("[{\"text\": \"x\"}]", {"a JSON array", "one object a line"});
  refused("\"text\"", {"a JSON string"});
  refused("{\"url\": 1, \"body\": 2}", {"no key 'text'", "'body', 'url'", "--key"});
  refused("{}", {"no key 'text'", "none"});
  refused("{\"text\": 5}", {"key 'text' is a number"});
}

TEST_CASE("invalid UTF-8 is refused with line and byte, or skipped", "[data_tools][parser]") {
  require_error(ExitCode::input,
                {"a.txt:11:", "invalid UTF-8", "0xe9", "byte 507", "--invalid-utf8"},
                [] { parse("one\ncaf\xe9\nthree\n", "a.txt"); });
  InputSettings settings;
  settings.format = "paragraphs";
  require_error(ExitCode::input, {"a.txt:13:", "byte 512"},
                [&] { parse("one\n\ntwo\ncaf\xe9\n", "a.txt", settings); });
  settings = {};
  settings.invalid_utf8 = "skip";
  const Parsed parsed = parse("one\ncaf\xe9\nthree\n", "a.txt", settings);
  CHECK(parsed.documents == Texts{"one", "three"});
  CHECK(parsed.counts.invalid_utf8 == 1);
}
