// SPDX-License-Identifier: Apache-2.0
#include "data_tools/input/block_reader.h"

#include <algorithm>

namespace stmoe {
namespace {
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\n\r\f\v") == std::string_view::npos;
}

BlockReader::BlockReader(const Path& path, DocumentEnd end, size_t block_bytes)
    : source_(open_bytes(path)), end_(end), block_bytes_(block_bytes) {}

bool BlockReader::next(TextBlock& block) {
  size_t cut = 0;
  while (!is_at_end_ && (buffer_.size() < block_bytes_ || (cut = find_cut()) == 0)) read_more();
  if (is_at_end_) cut = buffer_.size();
  if (cut == 0) return false;
  block.text = buffer_.substr(0, cut);
  block.first_line = line_;
  block.byte_offset = offset_;
  block.file_position = source_->file_position();
  buffer_.erase(0, cut);
  line_ += static_cast<uint64_t>(std::count(block.text.begin(), block.text.end(), '\n'));
  offset_ += cut;
  return true;
}

bool BlockReader::read_more() {
  const size_t before = buffer_.size();
  buffer_.resize(before + block_bytes_);
  const size_t got = source_->read(std::span(buffer_).subspan(before));
  buffer_.resize(before + got);
  is_at_end_ = got == 0;
  // A source gives at least the three bytes of the mark at once, unless the file is shorter.
  if (is_first_ && buffer_.starts_with(kByteOrderMark)) {
    buffer_.erase(0, kByteOrderMark.size());
    offset_ = kByteOrderMark.size();
  }
  is_first_ = false;
  return got > 0;
}

// Just after the last document end in the buffer; 0 when there is none.
size_t BlockReader::find_cut() const {
  size_t newline = buffer_.rfind('\n');
  if (end_ == DocumentEnd::line) return newline + 1;  // npos + 1 is 0
  while (newline != std::string::npos && newline > 0) {
    const size_t before = buffer_.rfind('\n', newline - 1);
    const size_t begin = before + 1;
    const bool is_whole_line = before != std::string::npos;
    if (is_whole_line && is_blank(std::string_view(buffer_).substr(begin, newline - begin)))
      return newline + 1;
    newline = before;
  }
  return 0;
}

}  // namespace stmoe
