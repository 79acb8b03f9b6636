// SPDX-License-Identifier: Apache-2.0
// A file read in pieces, with a look-ahead buffer for the decompressors.
#pragma once

#include <string_view>
#include <vector>

#include "data_tools/input/byte_source.h"

namespace stmoe {

class FileBytes : public ByteSource {
 public:
  explicit FileBytes(const Path& path);
  ~FileBytes() override;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  size_t read(std::span<char> buffer) override;
  uint64_t file_position() const override { return position_; }

  // Unread bytes, read from disk when there are none; empty at the end of the file.
  std::string_view peek();
  void skip(size_t bytes);
  const Path& path() const { return path_; }

 private:
  Path path_;
  int descriptor_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t position_ = 0;
};

std::unique_ptr<ByteSource> open_gzip(std::unique_ptr<FileBytes> file);
std::unique_ptr<ByteSource> open_zstd(std::unique_ptr<FileBytes> file);

}  // namespace stmoe
