// SPDX-License-Identifier: Apache-2.0
// What Tensor::copy_from and Tensor::fill run within one device.
#pragma once

#include "lib/tensor/tensor.h"

namespace stmoe {

struct CopyKernels {
  static constexpr const char* kOp = "copy";
  // Any strides, any two element types; the same shape, not empty.
  void (*copy)(const Tensor& to, const Tensor& from);
  // Contiguous, not empty; the value is converted to the element type.
  void (*fill)(const Tensor& to, double value);
};

}  // namespace stmoe
