// SPDX-License-Identifier: Apache-2.0
// Sums of squares on the CPU, in f64 over fixed chunks.
#pragma once

#include <numeric>
#include <vector>

#include "lib/base/threads.h"
#include "lib/tensor/dtype.h"

namespace stmoe {
inline namespace STMOE_CPU_LEVEL {

inline constexpr int64_t kSquaresChunk = 1 << 15;

// A function of its own: in a lambda, captured pointers would be read again for every element.
// Squares are summed in f64: at memory speed, without overflow or lost small terms.
template <class T>
double squares_of(const T* __restrict x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(static_cast<Compute<T>>(x[i]));
    sum += value * value;
  }
  return sum;
}

// The sum of chunk(begin, end) over the chunks of `count` elements, in their order.
template <class F>
double sum_of_chunks(int64_t count, F&& sum_of_chunk) {
  std::vector<double> partial(static_cast<size_t>(num_chunks(count, kSquaresChunk)));
  parallel_for(count, kSquaresChunk, [&](int64_t begin, int64_t end, int64_t chunk) {
    partial[static_cast<size_t>(chunk)] = sum_of_chunk(begin, end);
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

}  // namespace STMOE_CPU_LEVEL
}  // namespace stmoe
