// SPDX-License-Identifier: Apache-2.0
// A radix sort of every group, from the last digit of 8 bits to the first, each pass stable: places
// by digit are found as places by expert are (expert_ranks.h). Values are never moved, only the
// order; four passes of four launches for f32, whatever the number of groups.
#include "cuda/device/expert_ranks.h"
#include "cuda/device/sort_keys.h"
#include "lib/ops/descending_order.h"

namespace stmoe::gpu {
namespace {

constexpr int kDigits = 256, kDigitBits = 8;

// The tokens of a group in the order that the passes before gave (null: their own).
template <class T>
struct DigitEntries {
  const T* value_N;
  const int32_t* from_N;
  int32_t* to_N;
  const int32_t* first_GE1;
  int64_t tokens;
  int shift;
};

template <class T>
STMOE_DEVICE int64_t token_at(const DigitEntries<T>& in, int64_t group, int64_t i) {
  const int64_t at = group * in.tokens + i;
  return in.from_N ? in.from_N[at] : at;
}

template <class T>
STMOE_DEVICE int expert_at(const DigitEntries<T>& in, int64_t group, int64_t i) {
  const auto key = ~ascending_key(in.value_N[token_at(in, group, i)]);  // the largest first
  return static_cast<int>(key >> in.shift & (kDigits - 1));
}

template <class T>
STMOE_DEVICE void place_at(const DigitEntries<T>& in, int64_t group, int64_t i, int digit,
                           int64_t place) {
  const int64_t first = in.first_GE1[group * (kDigits + 1) + digit];
  in.to_N[group * in.tokens + first + place] = static_cast<int32_t>(token_at(in, group, i));
}

template <class T>
void sort_typed(const Tensor& order_N, const Tensor& value_N, int64_t groups) {
  constexpr int kPasses = sizeof(T);  // an even number: the last one writes order_N
  const Device device = order_N.device();
  const int64_t tokens = value_N.numel() / groups;
  const Tensor other_N = Tensor::empty_like(order_N);
  RankOptions options;
  options.total_GE = Tensor::empty({groups, kDigits}, DType::i32, device);
  options.first_GE1 = Tensor::empty({groups, kDigits + 1}, DType::i32, device);
  for (int pass = 0; pass < kPasses; ++pass) {
    const Tensor &to = pass % 2 ? order_N : other_N, &from = pass % 2 ? other_N : order_N;
    const DigitEntries<T> entries = {value_N.data<T>(),
                                     pass > 0 ? from.data<int32_t>() : nullptr,
                                     to.data<int32_t>(),
                                     options.first_GE1.data<int32_t>(),
                                     tokens,
                                     pass * kDigitBits};
    rank_entries(entries, groups, tokens, kDigits, device, options);
  }
}

void sort(const Tensor& order_N, const Tensor& value_N, int64_t groups) {
  if (value_N.dtype() == DType::f64)
    sort_typed<double>(order_N, value_N, groups);
  else
    sort_typed<float>(order_N, value_N, groups);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(DescendingOrderKernels, STMOE_GPU, {gpu::sort})

}  // namespace stmoe
