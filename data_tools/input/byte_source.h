// SPDX-License-Identifier: Apache-2.0
// The bytes of a file, unpacked when it is gzip (any number of members) or zstd (any number of
// frames). What a file is is seen from its first bytes, not from its name.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "lib/base/files.h"

namespace stmoe {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of `buffer` and returns how many bytes; 0 only at the end. Throws InputError,
  // naming the place in the file, for what cannot be read, is damaged or truncated.
  virtual size_t read(std::span<char> buffer) = 0;
  // Bytes of the file itself consumed so far.
  virtual uint64_t file_position() const = 0;
};

// Throws InputError when the file is missing, a directory, not readable, or named .gz or .zst
// without being one.
std::unique_ptr<ByteSource> open_bytes(const Path& path);

}  // namespace stmoe
