// SPDX-License-Identifier: Apache-2.0
#include "lib/checkpoint/checksum_list.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/checkpoint/format.h"

namespace stmoe::detail {
namespace {

constexpr size_t kHashDigits = 32;

bool is_hash(std::string_view text) {
  return text.size() == kHashDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool is_file_name(std::string_view text) {
  return !text.empty() && !text.starts_with('.') && text.find('/') == std::string_view::npos;
}

}  // namespace

std::string checksum_text(const std::vector<FileChecksum>& list) {
  std::string text;
  for (const FileChecksum& entry : list) text += format("{}  {}\n", entry.hash, entry.file);
  return text;
}

std::vector<FileChecksum> read_checksum_list(const Path& checkpoint) {
  Path path = checkpoint / kChecksumFile;
  const std::string text = read_file(path);
  std::vector<FileChecksum> list;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    std::string line = text.substr(begin, end - begin);
    std::string hash = line.substr(0, kHashDigits);
    bool has_file = line.size() > kHashDigits + 2 && line.substr(kHashDigits, 2) == "  ";
    std::string file = has_file ? line.substr(kHashDigits + 2) : "";
    if (end == std::string::npos || !is_hash(hash) || !is_file_name(file))
      throw InputError(
          format("{}:{}: damaged; expected 32 hexadecimal digits, two spaces and a file name",
                 path.string(), list.size() + 1));
    list.push_back({file, hash});
    begin = end + 1;
  }
  if (list.empty() || list.front().file != kMainFile)
    throw InputError(
        format("{}: damaged; its first line should be that of {}", path.string(), kMainFile));
  return list;
}

}  // namespace stmoe::detail
