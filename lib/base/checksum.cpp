// SPDX-License-Identifier: Apache-2.0
#include "lib/base/checksum.h"

#include <cerrno>
#include <fstream>
#include <memory>
#include <vector>

#include <xxhash.h>

#include "lib/base/error.h"
#include "lib/base/format.h"

namespace stmoe {

std::string Hash128::text() const { return format("{:016x}{:016x}", high, low); }

Hash128 hash128(std::string_view bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

Hash128 hash128_of_file(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(format("{}: cannot be read ({})", path.string(), errno_text(errno)));
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                 XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::vector<char> block(size_t{1} << 20);
  while (file) {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    XXH3_128bits_update(state.get(), block.data(), static_cast<size_t>(file.gcount()));
  }
  if (file.bad())
    throw InputError(format("{}: reading failed ({})", path.string(), errno_text(errno)));
  XXH128_hash_t hash = XXH3_128bits_digest(state.get());
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
