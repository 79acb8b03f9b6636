// SPDX-License-Identifier: Apache-2.0
// UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace stmoe {

// Bytes of the first character of a valid text, and its code point; {0, 0} when `text` is empty or
// starts badly.
struct Utf8Character {
  size_t bytes = 0;
  char32_t code = 0;
};
Utf8Character first_character(std::string_view text);

// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

// Number of characters of a valid text.
size_t count_characters(std::string_view text);

}  // namespace stmoe
