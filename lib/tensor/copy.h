// SPDX-License-Identifier: Apache-2.0
// What Tensor::copy_from runs.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct CopyKernels {
  static constexpr const char* kOp = "copy";
  // Any strides, any two element types; the same shape, not empty.
  void (*copy)(const Tensor& to, const Tensor& from);
};

}  // namespace stmoe
