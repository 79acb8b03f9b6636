// SPDX-License-Identifier: Apache-2.0
#include "data_tools/input/file_bytes.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr size_t kBufferBytes = 1 << 18;
constexpr std::string_view kGzipMagic = "\x1f\x8b", kZstdMagic = "\x28\xb5\x2f\xfd";

void check_name(const Path& path, bool is_packed) {
  const std::string extension = path.extension().string();
  if ((extension == ".gz" || extension == ".zst") && !is_packed)
    throw InputError(
        format("{}: not {}, whatever its name says (its first bytes are other ones); expected an "
               "intact file, or one named for what it is",
               path.string(), extension == ".gz" ? "gzip" : "zstd"));
}

}  // namespace

FileBytes::FileBytes(const Path& path)
    : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), buffer_(kBufferBytes) {
  if (descriptor_ < 0)
    throw InputError(format("{}: cannot be read ({})", path.string(), errno_text(errno)));
  struct stat info {};
  if (::fstat(descriptor_, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(descriptor_);
    throw InputError(
        format("{}: is a directory, expected a file; name the files in it", path.string()));
  }
}

FileBytes::~FileBytes() { ::close(descriptor_); }

std::string_view FileBytes::peek() {
  if (begin_ == end_) {
    ssize_t got = 0;
    do got = ::read(descriptor_, buffer_.data(), buffer_.size());
    while (got < 0 && errno == EINTR);
    if (got < 0)
      throw InputError(format("{}: reading failed at byte {} ({})", path_.string(), position_,
                              errno_text(errno)));
    begin_ = 0;
    end_ = static_cast<size_t>(got);
  }
  return {buffer_.data() + begin_, end_ - begin_};
}

void FileBytes::skip(size_t bytes) {
  begin_ += bytes;
  position_ += bytes;
}

size_t FileBytes::read(std::span<char> buffer) {
  const std::string_view ready = peek();
  const size_t count = std::min(ready.size(), buffer.size());
  std::copy_n(ready.data(), count, buffer.data());
  skip(count);
  return count;
}

std::unique_ptr<ByteSource> open_bytes(const Path& path) {
  auto file = std::make_unique<FileBytes>(path);
  const std::string_view start = file->peek();
  const bool is_gzip = start.starts_with(kGzipMagic), is_zstd = start.starts_with(kZstdMagic);
  check_name(path, is_gzip || is_zstd);
  if (is_gzip) return open_gzip(std::move(file));
  if (is_zstd) return open_zstd(std::move(file));
  return file;
}

}  // namespace stmoe
