// SPDX-License-Identifier: Apache-2.0
// A pseudo-random permutation of {0, ..., count - 1} as a function of (key, index): nothing is
// stored, so the order of a corpus of any size can be entered at any place. A Feistel network on
// the next even number of bits, its rounds taken from Philox, repeated until the value falls below
// `count` (cycle walking; Black and Rogaway, 2002).
#pragma once

#include <cstdint>

#include "lib/base/random.h"

namespace stmoe {

class Permutation {
 public:
  Permutation(uint64_t count, RandomKey key);
  // Position `index` < count of the order; every value below count appears exactly once.
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t count_;
  RandomKey key_;
  int half_bits_;
};

}  // namespace stmoe
