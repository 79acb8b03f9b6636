// SPDX-License-Identifier: Apache-2.0
// Dropout masks as lib/ops/dropout_mask.h defines them, drawn where they are needed: the same words
// as on a CPU. Kernels see a tensor in units of V neighbouring elements, whose words are neighbours
// too.
#pragma once

#include "cuda/device/vector.h"
#include "lib/base/random.h"
#include "lib/ops/dropout_mask.h"

namespace stmoe::gpu {

// A DropoutMask in units. C: the type to compute in.
template <class C>
struct UnitMask {
  RandomKey key;
  uint64_t first = 0;            // element
  int64_t inner = 1, block = 0;  // units without and with the shared dimension; 0: nothing shared
  uint32_t threshold = 0;        // 0: everything is kept
  C factor = 1;
};

// Whether units of V elements have words that are drawn together.
inline bool tiles_mask(int V, const DropoutMask& mask) {
  if (!mask.is_on()) return true;
  return mask.first % static_cast<uint64_t>(V) == 0 && (mask.shared == 1 || mask.inner % V == 0);
}

template <class C>
UnitMask<C> unit_mask(const DropoutMask& mask, int V) {
  const int64_t inner = mask.inner / V;
  return {mask.key,       mask.first,
          inner,          mask.shared > 1 ? mask.shared * inner : 0,
          mask.threshold, static_cast<C>(mask.factor)};
}

// The random words of a unit of the tensor: four of them cost one draw.
template <int V, class C>
STMOE_DEVICE void draw_words(uint32_t (&words)[V], const UnitMask<C>& mask, int64_t unit) {
  if (mask.block > 0) {
    const int64_t outer = quotient(unit, mask.block), rest = unit - outer * mask.block;
    unit = outer * mask.inner + rest - quotient(rest, mask.inner) * mask.inner;
  }
  const uint64_t element = mask.first + static_cast<uint64_t>(unit) * V;
  if constexpr (V % 4 == 0) {
    STMOE_UNROLL
    for (int i = 0; i < V; i += 4) {
      const auto four = philox4x32(mask.key, element / 4 + static_cast<uint64_t>(i / 4));
      STMOE_UNROLL
      for (int j = 0; j < 4; ++j) words[i + j] = four[static_cast<size_t>(j)];
    }
  } else {
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) {
      const auto four = philox4x32(mask.key, (element + static_cast<uint64_t>(i)) / 4);
      const uint64_t which = (element + static_cast<uint64_t>(i)) % 4;
      // By choice, not by address: an array of registers has none.
      const uint32_t low = which == 0 ? four[0] : four[1], high = which == 2 ? four[2] : four[3];
      words[i] = which < 2 ? low : high;
    }
  }
}

// What dropout leaves of the values of a unit.
template <int V, class C>
STMOE_DEVICE void drop_out(C (&values)[V], const UnitMask<C>& mask, int64_t unit) {
  if (mask.threshold == 0) return;
  uint32_t words[V];
  draw_words(words, mask, unit);
  STMOE_UNROLL
  for (int i = 0; i < V; ++i)
    values[i] = (words[i] >> 8) >= mask.threshold ? mask.factor * values[i] : C(0);
}

}  // namespace stmoe::gpu
