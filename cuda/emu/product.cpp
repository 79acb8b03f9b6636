// SPDX-License-Identifier: Apache-2.0
// Matrix products on the emulated device: the CPU's. On a GPU they are the vendor library's
// (cuda/lib_ops).
#include "lib/ops/product.h"

#include <vector>

#include "cuda/emu/memory.h"
#include "cuda/emu/recording.h"

namespace stmoe {
namespace {

void multiply_emu(std::span<const Product> list, bool accumulate) {
  if (is_planning()) return;
  for (const Product& product : list)
    for (const MatrixView* view : {&product.c, &product.a, &product.b})
      emu::check_pointer(view->data);
  emu::run_or_record([kept = std::vector<Product>(list.begin(), list.end()), accumulate] {
    const emu::MemoryAccess access;
    kernels<ProductKernels>(Device::cpu).multiply(kept, accumulate);
  });
}

STMOE_REGISTER_KERNELS(ProductKernels, emu, {multiply_emu})

}  // namespace
}  // namespace stmoe
