// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include "data_tools/input/file_bytes.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

class ZstdBytes : public ByteSource {
 public:
  explicit ZstdBytes(std::unique_ptr<FileBytes> file)
      : file_(std::move(file)), stream_(ZSTD_createDStream()) {
    STMOE_CHECK(stream_ != nullptr, "zstd cannot be started");
    // Also what was packed with --long=31.
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }
  ~ZstdBytes() override { ZSTD_freeDStream(stream_); }

  size_t read(std::span<char> buffer) override {
    ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
    while (out.pos == 0) {
      const std::string_view packed = file_->peek();
      // With no input left the stream may still hold output of the frame it is in.
      const bool is_at_end = packed.empty();
      if (is_at_end && is_between_frames_) return 0;
      ZSTD_inBuffer in{packed.data(), packed.size(), 0};
      const size_t result = ZSTD_decompressStream(stream_, &out, &in);
      file_->skip(in.pos);
      if (ZSTD_isError(result))
        throw InputError(format("{}: broken zstd: {} near byte {}", file_->path().string(),
                                ZSTD_getErrorName(result), file_->file_position()));
      is_between_frames_ = result == 0;
      if (is_at_end && out.pos == 0 && !is_between_frames_)
        throw InputError(format(
            "{}: broken zstd: the file ends at byte {} in the middle of the data (truncated)",
            file_->path().string(), file_->file_position()));
    }
    return out.pos;
  }
  uint64_t file_position() const override { return file_->file_position(); }

 private:
  std::unique_ptr<FileBytes> file_;
  ZSTD_DStream* stream_;
  bool is_between_frames_ = true;
};

}  // namespace

std::unique_ptr<ByteSource> open_zstd(std::unique_ptr<FileBytes> file) {
  return std::make_unique<ZstdBytes>(std::move(file));
}

}  // namespace stmoe
