// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/router_input.h"

#include <algorithm>
#include <array>

#include "lib/base/random_words.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int64_t kChunk = 1 << 15;  // elements

// y[0..width) = x * (1 - jitter + 2 jitter u), u the uniform number of each element from `first`
// on.
template <class To, class From>
void multiply_noise(To* y, const From* x, int64_t width, const RouterInputOptions& options,
                    uint64_t first) {
  using C = Compute<To>;
  constexpr int64_t kTile = 256;
  std::array<uint32_t, kTile> bits;
  const C low = static_cast<C>(1.0 - options.jitter), range = static_cast<C>(2.0 * options.jitter);
  for (int64_t begin = 0; begin < width; begin += kTile) {
    const int64_t size = std::min(kTile, width - begin);
    fill_random_words(options.key, first + static_cast<uint64_t>(begin), bits.data(), size);
    for (int64_t i = 0; i < size; ++i) {
      const C noise = low + range * static_cast<C>(uniform_from_bits(bits[static_cast<size_t>(i)]));
      y[begin + i] =
          static_cast<To>(static_cast<C>(static_cast<Compute<From>>(x[begin + i])) * noise);
    }
  }
}

template <class To, class From>
void apply_rows(const Tensor& y_ND, const Tensor& x_ND, const RouterInputOptions& options) {
  const int64_t width = x_ND.dim(1);
  const int32_t* mask = options.mask_N.defined() ? options.mask_N.data<int32_t>() : nullptr;
  parallel_for(x_ND.dim(0), std::max<int64_t>(1, kChunk / std::max<int64_t>(1, width)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t n = begin; n < end; ++n) {
                   To* y = y_ND.data<To>() + n * width;
                   const From* x = x_ND.data<From>() + n * width;
                   if (mask && mask[n] == 0)
                     std::fill(y, y + width, To{});
                   else if (options.jitter > 0)
                     multiply_noise(y, x, width, options,
                                    static_cast<uint64_t>((options.first_token + n) * width));
                   else
                     for (int64_t d = 0; d < width; ++d)
                       y[d] = static_cast<To>(static_cast<Compute<From>>(x[d]));
                 }
               });
}

void apply_cpu(const Tensor& y_ND, const Tensor& x_ND, const RouterInputOptions& options) {
  if (x_ND.dtype() == DType::f64)
    apply_rows<double, double>(y_ND, x_ND, options);
  else if (x_ND.dtype() == y_ND.dtype())
    apply_rows<float, float>(y_ND, x_ND, options);
  else if (y_ND.dtype() == DType::f32)
    apply_rows<float, bf16>(y_ND, x_ND, options);
  else
    apply_rows<bf16, float>(y_ND, x_ND, options);
}

STMOE_REGISTER_KERNELS(RouterInputKernels, cpu, {apply_cpu})

}  // namespace

}  // namespace stmoe
