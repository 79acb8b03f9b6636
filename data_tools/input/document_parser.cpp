// SPDX-License-Identifier: Apache-2.0
#include "data_tools/input/document_parser.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace stmoe {
namespace {

std::string_view without_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// Pieces of a block with the numbers of their first lines.
class BlockParser {
 public:
  BlockParser(const Path& path, const TextBlock& block, const InputSettings& settings,
              const std::function<void(std::string_view)>& receive)
      : path_(path),
        block_(block),
        settings_(settings),
        format_(settings.format_of(path)),
        receive_(receive) {}

  ParseCounts run() {
    const bool joins_lines = format_ == TextFormat::paragraphs;
    const std::string_view text = block_.text;
    uint64_t line = block_.first_line, first_line = line;
    size_t begin = 0;  // of the paragraph
    for (size_t at = 0; at < text.size(); ++line) {
      const size_t newline = text.find('\n', at);
      const size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
      const bool ends_paragraph = is_blank(without_end(text.substr(at, end - at)));
      if (!joins_lines) {
        take(text.substr(at, end - at), line);
      } else if (ends_paragraph) {
        if (at > begin) take(text.substr(begin, at - begin), first_line);
        begin = end;
        first_line = line + 1;
      }
      at = end;
    }
    if (joins_lines && begin < text.size()) take(text.substr(begin), first_line);
    return counts_;
  }

 private:
  void take(std::string_view piece, uint64_t line) {
    piece = without_end(piece);
    if (is_blank(piece)) {
      ++counts_.blank;
      return;
    }
    if (const size_t bad = find_invalid_utf8(piece); bad != std::string_view::npos) {
      if (settings_.invalid_utf8 != "skip") fail_utf8(piece, bad, line);
      ++counts_.invalid_utf8;
      return;
    }
    if (format_ != TextFormat::json_lines)
      receive_(piece);
    else
      take_json(piece, line);
  }

  void take_json(std::string_view piece, uint64_t line) {
    nlohmann::json object;
    try {
      object = nlohmann::json::parse(piece);
    } catch (const nlohmann::json::parse_error& error) {
      fail_json(error.byte, line);
    }
    if (!object.is_object())
      throw InputError(format("{}: a JSON {}, expected one object a line (JSON lines)", where(line),
                              object.type_name()));
    const auto text = object.find(settings_.key);
    if (text == object.end()) fail_key(object, line);
    if (!text->is_string())
      throw InputError(format("{}: key '{}' is a {}, expected a text", where(line), settings_.key,
                              text->type_name()));
    const auto& document = text->get_ref<const std::string&>();
    if (is_blank(document))
      ++counts_.blank;
    else
      receive_(document);
  }

  std::string where(uint64_t line) const { return format("{}:{}", path_.string(), line); }

  [[noreturn]] void fail_utf8(std::string_view piece, size_t bad, uint64_t line) const {
    const auto at = static_cast<size_t>(piece.data() - block_.text.data()) + bad;
    const auto before = piece.substr(0, bad);
    throw InputError(
        format("{}: invalid UTF-8: byte 0x{:02x} at byte {} of the text; convert the file to UTF-8 "
               "(iconv), or leave such documents out with --invalid-utf8 skip",
               where(line + static_cast<uint64_t>(std::count(before.begin(), before.end(), '\n'))),
               static_cast<unsigned char>(piece[bad]), block_.byte_offset + at));
  }

  [[noreturn]] void fail_json(size_t character, uint64_t line) const {
    throw InputError(format(
        "{}: invalid JSON at character {} of the line; expected one object a line (JSON lines), or "
        "say what the file is with --format",
        where(line), character));
  }

  [[noreturn]] void fail_key(const nlohmann::json& object, uint64_t line) const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(format("'{}'", key));
    throw InputError(format("{}: no key '{}'; the object has {}; name the right one with --key",
                            where(line), settings_.key,
                            keys.empty() ? "none" : format("{}", fmt::join(keys, ", "))));
  }

  const Path& path_;
  const TextBlock& block_;
  const InputSettings& settings_;
  TextFormat format_;
  const std::function<void(std::string_view)>& receive_;
  ParseCounts counts_;
};

}  // namespace

TextFormat InputSettings::format_of(const Path& path) const {
  if (format == "lines") return TextFormat::lines;
  if (format == "paragraphs") return TextFormat::paragraphs;
  if (format == "json") return TextFormat::json_lines;
  Path name = path.filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const std::string extension = name.extension().string();
  const bool is_json = extension == ".json" || extension == ".jsonl" || extension == ".ndjson";
  return is_json ? TextFormat::json_lines : TextFormat::lines;
}

ParseCounts parse_documents(const Path& path, const TextBlock& block, const InputSettings& settings,
                            const std::function<void(std::string_view text)>& receive) {
  return BlockParser(path, block, settings, receive).run();
}

}  // namespace stmoe
