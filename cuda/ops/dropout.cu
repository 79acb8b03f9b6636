// SPDX-License-Identifier: Apache-2.0
// Reads and writes each element once; the mask is drawn on the way (cuda/device/dropout_mask.h).
#include "cuda/device/map.h"
#include "lib/ops/dropout.h"

namespace stmoe::gpu {
namespace {

struct Same {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class C>
  STMOE_DEVICE void of(C* y, const C* x) {
    y[0] = x[0];
  }
};

void apply(const Tensor& y, const Tensor& x, const Dropout& dropout) {
  // One long row, along which a mask may be shared: its units go through any dimension.
  const HiddenMask mask = {1, x.numel(), dropout_mask(DropoutKernels::kOp, x.shape(), dropout), {}};
  visit_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    map_hidden<Same, T>({y.data<T>()}, {x.data<T>()}, mask, {});
  });
}

}  // namespace
}  // namespace stmoe::gpu

namespace stmoe {

STMOE_REGISTER_KERNELS(DropoutKernels, STMOE_GPU, {gpu::apply})

}  // namespace stmoe
