// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fstream>

#include "lib/base/files.h"

namespace stmoe {

// Changes one byte of a file in place; a second call with the same `bits` undoes it.
inline void flip_byte(const Path& path, uint64_t at, char bits = 1) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(at));
  char byte = static_cast<char>(file.get() ^ bits);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

}  // namespace stmoe
