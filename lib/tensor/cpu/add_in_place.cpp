// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/add_in_place.h"

#include "lib/base/threads.h"

namespace stmoe {
namespace {

void add_cpu(const Tensor& into, const Tensor& term) {
  visit_floating(into.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = into.data<T>();
    const T* in = term.data<T>();
    parallel_for(into.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[i] = static_cast<T>(static_cast<Compute<T>>(out[i]) + static_cast<Compute<T>>(in[i]));
    });
  });
}

STMOE_REGISTER_KERNELS(AddInPlaceKernels, cpu, {add_cpu})

}  // namespace
}  // namespace stmoe
