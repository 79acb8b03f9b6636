// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter 2019) with the operations in the order of torch.optim.AdamW:
//   p *= 1 - lr * weight_decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps),  t from 1
#pragma once

#include "lib/optim/weight_update.h"

namespace stmoe {

// One weight's update; tensors are contiguous f32 (or all f64), but for what the weight is stored
// in.
struct AdamWUpdate {
  UpdatedWeight weight;
  Tensor gradient, first, second;
  double beta1, beta2, epsilon;
  double decay;              // 1 - lr * weight_decay
  double step_size;          // lr / (1 - b1^t)
  double second_correction;  // sqrt(1 - b2^t)
};

struct AdamWKernels {
  static constexpr const char* kOp = "adamw";
  void (*update)(const AdamWUpdate& update);
};

}  // namespace stmoe
