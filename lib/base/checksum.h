// SPDX-License-Identifier: Apache-2.0
// Hashes: XXH3-128 (vocabulary identity, duplicate documents) and CRC-32C (TensorBoard's record
// frames).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/files.h"

namespace stmoe {

struct Hash128 {
  uint64_t high = 0, low = 0;
  bool operator==(const Hash128&) const = default;
  auto operator<=>(const Hash128&) const = default;
  // 32 lower-case hexadecimal digits.
  std::string text() const;
};

Hash128 hash128(std::string_view bytes);
// Of a file's bytes, as `xxh128sum` prints it. Throws InputError when it cannot be read.
Hash128 hash128_of_file(const Path& path);
uint32_t crc32c(std::string_view bytes);

}  // namespace stmoe
