// SPDX-License-Identifier: Apache-2.0
// A mean over tokens that a mask may leave out: blocks write the sums of their values and their
// number, one block adds them up in order.
#pragma once

#include "cuda/device/warp.h"
#include "cuda/runtime/launch.h"
#include "lib/tensor/tensor.h"

namespace stmoe::gpu {

inline constexpr int kMeanThreads = 256;

struct Term {
  double value = 0, count = 0;
};

STMOE_DEVICE void write_block_sum(Term* partial, Term own, double* shared) {
  own.value = block_sum(own.value, shared);
  own.count = block_sum(own.count, shared + kWarp);
  if (thread_index() == 0) partial[block_index()] = own;
}

// One block: *mean = sum / max(1, count), and *count_out, where they are not null.
template <class T>
STMOE_KERNEL finish_mean(T* mean, double* count_out, const Term* partial, int64_t blocks) {
  STMOE_SHARED(double, sums, 2 * kWarp);
  Term total;
  for (int64_t i = thread_index(); i < blocks; i += kMeanThreads) {
    total.value += partial[i].value;
    total.count += partial[i].count;
  }
  total.value = block_sum(total.value, sums);
  total.count = block_sum(total.count, sums + kWarp);
  if (total.count < 1) total.count = 1;
  if (thread_index() == 0) {
    if (mean) *mean = static_cast<T>(total.value / total.count);
    if (count_out) *count_out = total.count;
  }
}

// For `blocks` blocks.
inline Tensor empty_terms(int64_t blocks, Device device) {
  return Tensor::empty({blocks, 2}, DType::f64, device);
}
inline Term* terms_of(const Tensor& partial) {
  return reinterpret_cast<Term*>(partial.data<double>());
}

}  // namespace stmoe::gpu
