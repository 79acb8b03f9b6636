// SPDX-License-Identifier: Apache-2.0
// Internal to this room: checksums.xxh128, the list of a checkpoint's files with their XXH3-128
// hashes in the format of `xxh128sum`, so that `xxh128sum --check checksums.xxh128` verifies a
// checkpoint without this program.
#pragma once

#include <vector>

#include "lib/base/checksum.h"
#include "lib/base/files.h"

namespace stmoe::detail {

struct FileChecksum {
  std::string file;  // in the checkpoint's directory
  std::string hash;  // 32 hexadecimal digits
};

std::string checksum_text(const std::vector<FileChecksum>& list);
// Throws InputError unless every byte of the list is as checksum_text writes it.
std::vector<FileChecksum> read_checksum_list(const Path& checkpoint);

}  // namespace stmoe::detail
