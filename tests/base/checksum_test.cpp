// SPDX-License-Identifier: Apache-2.0
#include "lib/base/checksum.h"

#include <catch2/catch.hpp>

namespace stmoe {

TEST_CASE("crc32c gives the check values of RFC 3720", "[base][checksum]") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c("") == 0);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62A8AB43u);
}

TEST_CASE("hash128 is XXH3 with 128 bits", "[base][checksum]") {
  // From the sanity check of the xxHash distribution (tests/sanity_test_vectors.h): lengths 0
  // and 1.
  CHECK(hash128("") == Hash128{0x99AA06D3014798D8u, 0x6001C324468D497Fu});
  CHECK(hash128(std::string(1, '\0')) == Hash128{0xA6CD5E9392000F6Au, 0xC44BDFF4074EECDBu});
  CHECK(hash128("").text() == "99aa06d3014798d86001c324468d497f");
  CHECK(Hash128{1, 0xAB}.text() == "000000000000000100000000000000ab");
}

}  // namespace stmoe
