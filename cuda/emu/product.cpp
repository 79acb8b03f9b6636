// SPDX-License-Identifier: Apache-2.0
// Matrix products on the emulated device: the CPU's. On a GPU they are the vendor library's
// (cuda/lib_ops).
#include "lib/ops/product.h"

#include "cuda/emu/memory.h"

namespace stmoe {
namespace {

void multiply_emu(std::span<const Product> list, bool accumulate) {
  if (is_planning()) return;
  for (const Product& product : list)
    for (const MatrixView* view : {&product.c, &product.a, &product.b})
      emu::check_pointer(view->data);
  const emu::MemoryAccess access;
  kernels<ProductKernels>(Device::cpu).multiply(list, accumulate);
}

STMOE_REGISTER_KERNELS(ProductKernels, emu, {multiply_emu})

}  // namespace
}  // namespace stmoe
