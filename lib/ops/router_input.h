// SPDX-License-Identifier: Apache-2.0
// What the router multiplies with its kernel: y = f32(x) * noise * mask ("selective precision",
// Fedus et al. 2021, section 2.4), noise ~ U(1 - jitter, 1 + jitter) per element, drawn again in
// the backward pass, never stored.
#pragma once

#include "lib/autograd/var.h"
#include "lib/base/random.h"

namespace stmoe {

struct RouterInputOptions {
  double jitter = 0;  // 0 <= jitter < 1; 0: no noise
  RandomKey key;
  // Index of the first token in the global batch: element (n, d) draws number (first_token + n) * D
  // + d.
  int64_t first_token = 0;
  // i32 [N] or undefined: rows with 0 become zeros (padding), and get no gradient.
  Tensor mask_N;
};

struct RouterInputKernels {
  static constexpr const char* kOp = "router_input";
  // y = x * noise * mask, in y's element type; also the gradient's rule.
  void (*apply)(const Tensor& y_ND, const Tensor& x_ND, const RouterInputOptions& options);
};

// x_ND floating -> f32 (f64 from f64).
Var router_input(const Var& x_ND, const RouterInputOptions& options);

}  // namespace stmoe
