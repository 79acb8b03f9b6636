// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/dropout_mask.h"
#include "cuda/runtime/launch.h"
#include "lib/ops/router_input.h"

namespace stmoe::gpu {
namespace {

constexpr int kThreads = 256;

template <class C>
struct Noise {
  UnitMask<C> words;
  bool is_on = false;
  C low = 1, range = 0;
};

// A thread for each unit of V elements: reads it and writes it in the other type, 16 bytes at a
// time where V is 8 (bf16 on one side) or 4; the mask of its row (or null) is one value for the
// whole warp. V = 1 for rows that are no multiple of that.
template <int V, class To, class From>
STMOE_KERNEL apply_units(To* y, const From* x, const int32_t* mask_N, int64_t units,
                         int64_t row_units, Noise<Compute<To>> noise) {
  using C = Compute<To>;
  const int64_t unit = block_index() * kThreads + thread_index();
  if (unit < units) {
    C result[V] = {};
    if (!mask_N || mask_N[quotient(unit, row_units)] != 0) {
      Compute<From> values[V];
      load_values<V>(values, x + unit * V);
      uint32_t words[V] = {};
      if (noise.is_on) draw_words(words, noise.words, unit);
      STMOE_UNROLL
      for (int i = 0; i < V; ++i) {
        const C factor = noise.low + noise.range * static_cast<C>(uniform_from_bits(words[i]));
        result[i] = noise.is_on ? static_cast<C>(values[i]) * factor : static_cast<C>(values[i]);
      }
    }
    store_values(y + unit * V, result);
  }
}

template <class To, class From>
void apply_typed(const Tensor& y_ND, const Tensor& x_ND, const RouterInputOptions& options) {
  constexpr int kWide = sizeof(To) == 2 || sizeof(From) == 2 ? 8 : kVectorOf<To>;
  using C = Compute<To>;
  const int64_t width = x_ND.dim(1);
  Noise<C> noise;
  noise.words.key = options.key;
  noise.words.first = static_cast<uint64_t>(options.first_token * width);
  noise.is_on = options.jitter > 0;
  noise.low = static_cast<C>(1.0 - options.jitter);
  noise.range = static_cast<C>(2.0 * options.jitter);
  To* y = y_ND.data<To>();
  const From* x = x_ND.data<From>();
  const auto run = [&](auto kernel, int each) {
    const int64_t units = x_ND.numel() / each;
    launch(kernel, blocks_for(units, kThreads), kThreads, 0, y, x,
           options.mask_N.defined() ? options.mask_N.data<int32_t>() : nullptr, units, width / each,
           noise);
  };
  if (tiles_rows(kWide, width, y, x) && noise.words.first % 4 == 0)
    run(apply_units<kWide, To, From>, kWide);
  else
    run(apply_units<1, To, From>, 1);
}

void apply(const Tensor& y_ND, const Tensor& x_ND, const RouterInputOptions& options) {
  if (x_ND.numel() == 0) return;
  if (x_ND.dtype() == DType::f64)
    apply_typed<double, double>(y_ND, x_ND, options);
  else if (x_ND.dtype() == y_ND.dtype())
    apply_typed<float, float>(y_ND, x_ND, options);
  else if (y_ND.dtype() == DType::f32)
    apply_typed<float, bf16>(y_ND, x_ND, options);
  else
    apply_typed<bf16, float>(y_ND, x_ND, options);
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(RouterInputKernels, STMOE_GPU, {gpu::apply})

}  // namespace stmoe
