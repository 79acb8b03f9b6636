// SPDX-License-Identifier: Apache-2.0
// How the CPU's optimizers read and write weights: the plain ones in place, the others in pieces
// that are brought to f32 and stored again.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

#include "lib/base/random.h"
#include "lib/optim/weight_update.h"

namespace stmoe {
inline namespace STMOE_CPU_LEVEL {

using One = std::integral_constant<int64_t, 1>;

// rounded[first + j step] = weight[first + j step] for `count` values of j; nothing when `rounded`
// is undefined.
template <class T, class Step>
void round_weights(const Tensor& rounded, const T* __restrict weight, int64_t first, Step step,
                   int64_t count) {
  if (!rounded.defined()) return;
  bf16* __restrict out = rounded.data<bf16>() + first;
  for (int64_t j = 0; j < count; ++j) out[j * step] = static_cast<bf16>(weight[first + j * step]);
}

// values[j] = the weight at first + j step.
template <class Step>
void load_weights(float* __restrict values, const WeightTensor& weight, int64_t first, Step step,
                  int64_t count) {
  const bf16* __restrict high = weight.value.data<bf16>() + first;
  if (!weight.low.defined()) {
    for (int64_t j = 0; j < count; ++j) values[j] = static_cast<float>(high[j * step]);
    return;
  }
  const int16_t* __restrict low = weight.low.data<int16_t>() + first;
  for (int64_t j = 0; j < count; ++j)
    values[j] = std::bit_cast<float>(join_bits({high[j * step].bits, low[j * step]}));
}

// The other way. The random word of an element is that of its place in the weight.
template <class Step>
void store_weights(const UpdatedWeight& to, const float* __restrict values, int64_t first,
                   Step step, int64_t count) {
  bf16* __restrict high = to.weight.value.data<bf16>() + first;
  if (to.weight.low.defined()) {
    int16_t* __restrict low = to.weight.low.data<int16_t>() + first;
    for (int64_t j = 0; j < count; ++j) {
      const SplitBits halves = split_bits(std::bit_cast<uint32_t>(values[j]));
      high[j * step].bits = halves.high;
      low[j * step] = halves.low;
    }
    return;
  }
  uint64_t drawn = ~uint64_t{0};
  std::array<uint32_t, 4> words{};
  for (int64_t j = 0; j < count; ++j) {
    const auto place = static_cast<uint64_t>(to.first_place + first + j * step);
    if (place / 4 != drawn) words = philox4x32(to.rounding_key, drawn = place / 4);
    high[j * step].bits =
        round_stochastically(std::bit_cast<uint32_t>(values[j]), words[place % 4]);
  }
}

// Calls update(weights, step of weights, j, n) with weights to be changed for places j to j + n of
// `count`, whose weights are at first + place * step.
template <class T, class Step, class F>
void change_weights(const UpdatedWeight& to, int64_t first, Step step, int64_t count, F&& update) {
  if (to.weight.is_plain()) {
    T* values = to.weight.value.data<T>();
    update(values + first, step, int64_t{0}, count);
    round_weights(to.rounded, values, first, step, count);
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    constexpr int64_t kPiece = 1024;
    float values[kPiece];
    for (int64_t j = 0; j < count; j += kPiece) {
      const int64_t n = std::min(kPiece, count - j);
      load_weights(values, to.weight, first + j * step, step, n);
      update(values, One{}, j, n);
      store_weights(to, values, first + j * step, step, n);
    }
  }
}

}  // namespace STMOE_CPU_LEVEL
}  // namespace stmoe
