// SPDX-License-Identifier: Apache-2.0
// The tokenised documents of one input file, in the work folder beside the output. A part is
// complete when its .json file is there, which is written last.
#pragma once

#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "data_tools/corpus/counts.h"
#include "lib/base/checksum.h"
#include "lib/base/files.h"

namespace stmoe {

struct PartDocument {
  std::vector<int32_t> tokens;
  uint64_t text_bytes = 0;
  Hash128 hash;  // of the text, after cleaning
};

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

class PartWriter {
 public:
  // `path` without extension. Throws StorageError, as the others do.
  explicit PartWriter(const Path& path);
  void append(std::span<const int32_t> tokens, uint64_t text_bytes, Hash128 hash);
  // Makes the part complete.
  void finish(const CorpusCounts& counts);

 private:
  void write(const void* data, size_t bytes);

  Path path_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  uint64_t bytes_ = 0;
};

class PartReader {
 public:
  // Throws InputError when the part is not complete or was changed.
  explicit PartReader(const Path& path);
  const CorpusCounts& counts() const { return counts_; }
  bool next(PartDocument& document);

  static bool is_complete(const Path& path);

 private:
  bool read(void* data, size_t bytes);

  Path path_;
  CorpusCounts counts_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  uint64_t documents_left_;
};

}  // namespace stmoe
