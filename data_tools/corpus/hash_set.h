// SPDX-License-Identifier: Apache-2.0
// A set of 128-bit hashes in one flat table (open addressing, linear probing): 16 bytes an entry at
// most 3/4 full, so a billion documents need about 32 GB while the table grows and 21 GB after.
#pragma once

#include <vector>

#include "lib/base/checksum.h"

namespace stmoe {

class HashSet {
 public:
  HashSet() : table_(1 << 10) {}

  // True when the hash was not there yet.
  bool insert(Hash128 hash) {
    if (hash == Hash128{}) hash.low = 1;  // all zeros marks an empty place
    if (4 * (size_ + 1) > 3 * table_.size()) grow();
    Hash128& place = find(table_, hash);
    if (place == hash) return false;
    place = hash;
    ++size_;
    return true;
  }
  size_t size() const { return size_; }

 private:
  static Hash128& find(std::vector<Hash128>& table, const Hash128& hash) {
    const size_t mask = table.size() - 1;
    size_t at = static_cast<size_t>(hash.low) & mask;
    while (table[at] != Hash128{} && table[at] != hash) at = (at + 1) & mask;
    return table[at];
  }
  void grow() {
    std::vector<Hash128> larger(2 * table_.size());
    for (const Hash128& hash : table_)
      if (hash != Hash128{}) find(larger, hash) = hash;
    table_ = std::move(larger);
  }

  std::vector<Hash128> table_;
  size_t size_ = 0;
};

}  // namespace stmoe
