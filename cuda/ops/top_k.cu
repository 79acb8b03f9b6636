// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "cuda/device/row_walk.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/top_k.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// A column and its value; those to choose first compare as less. Column -1: none.
template <class T>
struct Candidate {
  T value;
  int column;
};

// A NaN counts as the lowest number, as on the CPU.
template <class T>
STMOE_DEVICE T comparable(T value) {
  return value == value ? value : -std::numeric_limits<T>::infinity();
}

template <class T>
STMOE_DEVICE bool comes_before(const Candidate<T>& a, const Candidate<T>& b) {
  return b.column < 0 || a.value > b.value || (a.value == b.value && a.column < b.column);
}

// A warp for each token, k rounds of its lanes looking for the first of what comes after the last
// round's choice: nothing is kept of what was chosen, and equals go to the lower column whatever
// the order of the lanes. Reads 4 bytes a value (in each round again with more than 256 experts),
// writes 4 a choice.
template <class T>
STMOE_KERNEL choose_columns(int32_t* index_NK, const T* values_NE, const int32_t* mask_N,
                            int64_t rows, int experts, int k) {
  const int64_t n = block_index() * kWarps + warp_index();
  if (n < rows) {
    const bool is_masked = mask_N && mask_N[n] == 0;
    const auto values = load_columns(values_NE + n * experts, experts);
    Candidate<T> last = {T(0), -1};
    for (int j = 0; j < k && !is_masked; ++j) {
      Candidate<T> best = {T(0), -1};
      for_each_column(values, [&](int e, T x) {
        const Candidate<T> here = {comparable(x), e};
        if ((last.column < 0 || comes_before(last, here)) && comes_before(here, best)) best = here;
      });
      for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        const Candidate<T> other = {shuffle_xor(best.value, distance),
                                    shuffle_xor(best.column, distance)};
        if (other.column >= 0 && comes_before(other, best)) best = other;
      }
      last = best;
      if (lane_index() == 0) index_NK[n * k + j] = best.column;
    }
    for (int j = lane_index(); j < k && is_masked; j += kWarp) index_NK[n * k + j] = -1;
  }
}

template <class T>
void choose_typed(const Tensor& index_NK, const Tensor& values_NE, const Tensor& mask_N) {
  launch(choose_columns<T>, blocks_for(values_NE.dim(0), kWarps), kThreads, 0,
         index_NK.data<int32_t>(), values_NE.data<T>(),
         mask_N.defined() ? mask_N.data<int32_t>() : nullptr, values_NE.dim(0), values_NE.dim(1),
         index_NK.dim(1));
}

void choose(const Tensor& index_NK, const Tensor& values_NE, const Tensor& mask_N) {
  if (values_NE.dtype() == DType::f64)
    choose_typed<double>(index_NK, values_NE, mask_N);
  else
    choose_typed<float>(index_NK, values_NE, mask_N);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(TopKKernels, STMOE_GPU, {gpu::choose})

}  // namespace stmoe
