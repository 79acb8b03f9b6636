// SPDX-License-Identifier: Apache-2.0
// How a kernel reads and writes weights, V neighbours at once, whatever they are stored as.
#pragma once

#include "cuda/device/vector.h"

namespace stmoe::gpu {

// f32, and beside them, where `rounded` is not null, the same as bf16.
struct PlainWeights {
  float* values;
  bf16* rounded;

  template <int V>
  STMOE_METHOD void load(float (&w)[V], int64_t at) const {
    load_values<V>(w, values + at);
  }
  template <int V>
  STMOE_METHOD void store(int64_t at, const float (&w)[V]) const {
    store_values(values + at, w);
    if (rounded) store_values(rounded + at, w);
  }
};

}  // namespace stmoe::gpu
