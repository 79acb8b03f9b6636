// SPDX-License-Identifier: Apache-2.0
// How kernels read and write weights, V neighbours at once, in every storage (weight_storage.h).
// Bytes of an element, read and written: f32 4 and 4 (and 2 for the bf16 copy), split 4 and 4,
// bf16_stochastic 2 and 2.
#pragma once

#include <type_traits>

#include "cuda/device/vector.h"
#include "lib/base/random.h"
#include "lib/optim/weight_update.h"

namespace stmoe::gpu {

// `rounded` may be null.
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

struct SplitWeights {
  bf16* high;
  int16_t* low;

  template <int V>
  STMOE_METHOD void load(float (&w)[V], int64_t at) const {
    const Vector<bf16, V> upper = load_vector<V>(high + at);
    const Vector<int16_t, V> lower = load_vector<V>(low + at);
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) w[i] = as_float(join_bits({upper.values[i].bits, lower.values[i]}));
  }
  template <int V>
  STMOE_METHOD void store(int64_t at, const float (&w)[V]) const {
    Vector<bf16, V> upper;
    Vector<int16_t, V> lower;
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) {
      const SplitBits halves = split_bits(as_bits(w[i]));
      upper.values[i].bits = halves.high;
      lower.values[i] = halves.low;
    }
    store_vector(high + at, upper);
    store_vector(low + at, lower);
  }
};

// The random word of an element is that of its place, whichever thread has it; four of them cost
// one draw.
struct StochasticWeights {
  bf16* values;
  RandomKey key;

  template <int V>
  STMOE_METHOD void load(float (&w)[V], int64_t at) const {
    load_values<V>(w, values + at);
  }
  template <int V>
  STMOE_METHOD void store(int64_t at, const float (&w)[V]) const {
    static_assert(V == 1 || V == 4);
    const auto words = philox4x32(key, static_cast<uint64_t>(at) / 4);
    Vector<bf16, V> rounded;
    STMOE_UNROLL
    for (int i = 0; i < V; ++i) {
      const int which = V == 4 ? i : static_cast<int>(at % 4);
      // By choice, not by address: an array of registers has none.
      const uint32_t low = which == 0 ? words[0] : words[1];
      const uint32_t high = which == 2 ? words[2] : words[3];
      rounded.values[i].bits = round_stochastically(as_bits(w[i]), which < 2 ? low : high);
    }
    store_vector(values + at, rounded);
  }
};

// Host: calls f(weights) with one of them.
template <class F>
void visit_weights(const UpdatedWeight& to, F&& f) {
  const Tensor& value = to.weight.value;
  switch (to.weight.storage) {
    case WeightStorage::f32:
      STMOE_CHECK(value.dtype() == DType::f32, "weights on a device are f32");
      return f(PlainWeights{value.data<float>(),
                            to.rounded.defined() ? to.rounded.data<bf16>() : nullptr});
    case WeightStorage::split:
      return f(SplitWeights{value.data<bf16>(), to.weight.low.data<int16_t>()});
    case WeightStorage::bf16_stochastic:
      STMOE_CHECK(to.first_place == 0, "a part of a weight");
      return f(StochasticWeights{value.data<bf16>(), to.rounding_key});
  }
}

// Host: whether `count` elements in a row come in vectors of four.
inline bool tiles_weights(const UpdatedWeight& to, int64_t count) {
  return tiles_rows(4, count, to.weight.value.raw(), to.weight.low.raw(), to.rounded.raw());
}

}  // namespace stmoe::gpu
