// SPDX-License-Identifier: Apache-2.0
#include "lib/base/checksum.h"

#include <xxhash.h>

#include "lib/base/format.h"

namespace stmoe {

std::string Hash128::text() const { return format("{:016x}{:016x}", high, low); }

Hash128 hash128(std::string_view bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> entries{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value & 1 ? (value >> 1) ^ 0x82F63B78u : value >> 1;
      entries[i] = value;
    }
    return entries;
  }();
  uint32_t crc = ~0u;
  for (unsigned char c : bytes) crc = (crc >> 8) ^ table[(crc ^ c) & 0xFF];
  return ~crc;
}

}  // namespace stmoe
