// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/part.h"

#include <array>
#include <cerrno>

#include "lib/base/error.h"

namespace stmoe {
namespace {

struct DocumentHeader {
  uint64_t num_tokens, text_bytes, hash_high, hash_low;
};

Path with_extension(const Path& path, const char* extension) {
  Path result = path;
  result += extension;
  return result;
}

std::unique_ptr<std::FILE, FileCloser> open_part(const Path& path, const char* mode) {
  std::unique_ptr<std::FILE, FileCloser> file(std::fopen(path.c_str(), mode));
  if (file) std::setvbuf(file.get(), nullptr, _IOFBF, 1 << 18);
  return file;
}

}  // namespace

PartWriter::PartWriter(const Path& path)
    : path_(path), file_(open_part(with_extension(path, ".tokens"), "wb")) {
  if (!file_)
    throw StorageError(format("{}: cannot be written ({}); check permissions and free space",
                              with_extension(path, ".tokens").string(), errno_text(errno)));
}

void PartWriter::write(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, file_.get()) != bytes)
    throw StorageError(format("{}: cannot be written ({}); free some space and run again",
                              with_extension(path_, ".tokens").string(), errno_text(errno)));
  bytes_ += bytes;
}

void PartWriter::append(std::span<const int32_t> tokens, uint64_t text_bytes, Hash128 hash) {
  const DocumentHeader header{tokens.size(), text_bytes, hash.high, hash.low};
  write(&header, sizeof header);
  write(tokens.data(), tokens.size_bytes());
}

void PartWriter::finish(const CorpusCounts& counts) {
  const Path tokens = with_extension(path_, ".tokens");
  if (std::fclose(file_.release()) != 0)
    throw StorageError(format("{}: cannot be written ({}); free some space and run again",
                              tokens.string(), errno_text(errno)));
  sync_to_disk(tokens);
  write_file_atomically(with_extension(path_, ".json"), counts.to_json());
}

bool PartReader::is_complete(const Path& path) {
  return std::filesystem::exists(with_extension(path, ".json"));
}

PartReader::PartReader(const Path& path)
    : path_(with_extension(path, ".tokens")),
      counts_(CorpusCounts::from_json(read_file(with_extension(path, ".json")),
                                      with_extension(path, ".json").string())),
      file_(open_part(path_, "rb")),
      documents_left_(counts_.documents) {
  if (!file_)
    throw InputError(format("{}: cannot be read ({}); remove the work folder and run again",
                            path_.string(), errno_text(errno)));
}

bool PartReader::read(void* data, size_t bytes) {
  return std::fread(data, 1, bytes, file_.get()) == bytes;
}

bool PartReader::next(PartDocument& document) {
  if (documents_left_ == 0) return false;
  --documents_left_;
  DocumentHeader header;
  bool is_whole = read(&header, sizeof header) && header.num_tokens <= counts_.tokens;
  if (is_whole) {
    document.tokens.resize(header.num_tokens);
    is_whole = read(document.tokens.data(), header.num_tokens * sizeof(int32_t));
  }
  if (!is_whole)
    throw InputError(format("{}: truncated; remove the work folder and run again", path_.string()));
  document.text_bytes = header.text_bytes;
  document.hash = {header.hash_high, header.hash_low};
  return true;
}

}  // namespace stmoe
