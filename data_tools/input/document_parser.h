// SPDX-License-Identifier: Apache-2.0
// Documents of a block of text: one a line, separated by blank lines, or JSON lines.
#pragma once

#include <functional>
#include <string_view>

#include "data_tools/input/block_reader.h"

namespace stmoe {

enum class TextFormat {
  lines,       // one document a line
  paragraphs,  // separated by blank lines
  json_lines   // one object a line
};

struct InputSettings {
  std::string format = "auto";         // auto, lines, paragraphs, json
  std::string key = "text";            // of JSON objects
  std::string invalid_utf8 = "error";  // or skip: the document is left out

  // By the name (without .gz or .zst) when `format` is auto: .json, .jsonl and .ndjson are JSON
  // lines, others lines.
  TextFormat format_of(const Path& path) const;
  DocumentEnd document_end(const Path& path) const {
    return format_of(path) == TextFormat::paragraphs ? DocumentEnd::blank_line : DocumentEnd::line;
  }
};

// What a block had besides the documents that were handed out.
struct ParseCounts {
  uint64_t blank = 0, invalid_utf8 = 0;
};

// Calls `receive` with each document that is not blank, in order. Throws InputError naming file,
// line and, where it matters, byte: invalid UTF-8 (unless skipped), invalid JSON, an object without
// the key. Safe for several threads.
ParseCounts parse_documents(const Path& path, const TextBlock& block, const InputSettings& settings,
                            const std::function<void(std::string_view text)>& receive);

}  // namespace stmoe
