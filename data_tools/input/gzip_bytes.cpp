// SPDX-License-Identifier: Apache-2.0
#include <zlib.h>

#include "data_tools/input/file_bytes.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

class GzipBytes : public ByteSource {
 public:
  explicit GzipBytes(std::unique_ptr<FileBytes> file) : file_(std::move(file)) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    STMOE_CHECK(inflateInit2(&stream_, kGzipOnly) == Z_OK, "zlib cannot be started");
  }
  ~GzipBytes() override { inflateEnd(&stream_); }

  size_t read(std::span<char> buffer) override {
    stream_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream_.avail_out = static_cast<uInt>(buffer.size());
    while (stream_.avail_out == buffer.size() && !is_finished_) inflate_some();
    return buffer.size() - stream_.avail_out;
  }
  uint64_t file_position() const override { return file_->file_position(); }

 private:
  void inflate_some() {
    const std::string_view packed = file_->peek();
    if (packed.empty())
      throw InputError(
          format("{}: broken gzip: the file ends at byte {} in the middle of the data (truncated)",
                 file_->path().string(), file_->file_position()));
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream_.avail_in = static_cast<uInt>(packed.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    file_->skip(packed.size() - stream_.avail_in);
    if (result == Z_STREAM_END)
      start_next_member();
    else if (result != Z_OK && result != Z_BUF_ERROR)
      fail(stream_.msg ? stream_.msg : "bad data");
  }

  // Members follow each other; zeros may fill up the file's last block.
  void start_next_member() {
    for (std::string_view rest = file_->peek(); !rest.empty(); rest = file_->peek()) {
      const size_t zeros = std::min(rest.find_first_not_of('\0'), rest.size());
      file_->skip(zeros);
      if (zeros < rest.size()) break;
    }
    if (file_->peek().empty()) {
      is_finished_ = true;
      return;
    }
    if (file_->peek()[0] != '\x1f') fail("something else follows the compressed data");
    STMOE_CHECK(inflateReset(&stream_) == Z_OK);
  }

  [[noreturn]] void fail(const char* reason) const {
    throw InputError(format("{}: broken gzip: {} at byte {}", file_->path().string(), reason,
                            file_->file_position()));
  }

  std::unique_ptr<FileBytes> file_;
  z_stream stream_{};
  bool is_finished_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_gzip(std::unique_ptr<FileBytes> file) {
  return std::make_unique<GzipBytes>(std::move(file));
}

}  // namespace stmoe
