// SPDX-License-Identifier: Apache-2.0
// A text file in blocks of about a megabyte that end where a document ends, so that blocks can be
// parsed apart.
#pragma once

#include <memory>
#include <string>

#include "data_tools/input/byte_source.h"

namespace stmoe {

enum class DocumentEnd { line, blank_line };

struct TextBlock {
  std::string text;
  uint64_t first_line = 1;     // number of its first line in the file
  uint64_t byte_offset = 0;    // of its first byte in the (unpacked) file
  uint64_t file_position = 0;  // bytes of the file itself read by the end of the block
};

class BlockReader {
 public:
  static constexpr size_t kBlockBytes = 1 << 20;
  BlockReader(const Path& path, DocumentEnd end, size_t block_bytes = kBlockBytes);

  // False at the end of the file. A byte order mark at the beginning is left out. Throws as
  // ByteSource::read.
  bool next(TextBlock& block);

 private:
  bool read_more();
  size_t find_cut() const;

  std::unique_ptr<ByteSource> source_;
  DocumentEnd end_;
  size_t block_bytes_;
  std::string buffer_;
  uint64_t line_ = 1, offset_ = 0;
  bool is_at_end_ = false, is_first_ = true;
};

// Whether there is nothing but ASCII white space.
bool is_blank(std::string_view text);

}  // namespace stmoe
