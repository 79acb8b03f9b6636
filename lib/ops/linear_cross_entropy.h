// SPDX-License-Identifier: Apache-2.0
// The language-model loss of hidden states: cross_entropy (cross_entropy.h) of the logits factor *
// h w, or factor * h w^T, without ever holding the logits of all tokens. Rows are taken in chunks;
// where the host can read the targets, rows that do not count are left out; on a device
// they stay in, with no loss and no gradient, so that all shapes are known. When the result is
// recorded, each chunk's gradient is made while its logits are there, and what the backward pass
// returns is ready when the forward pass ends:  dh = factor * dlogits w^T,  dw = sum over chunks of
// dlogits^T (factor * h) in f32.
#pragma once

#include "lib/ops/cross_entropy.h"

namespace stmoe {

struct LinearCrossEntropyOptions {
  CrossEntropyOptions loss;
  double factor = 1;           // of h: d_model^-0.5 when the table is the embedding
  bool is_transposed = false;  // w is [V, D], as an embedding is
  // The gradient that the backward pass will bring to the total. With another one everything is
  // right as well, but costs a pass over dh and dw.
  double expected_gradient = 1;
  int64_t chunk_rows = 0;  // 0: loss_chunk_rows
};

struct LinearCrossEntropyKernels {
  static constexpr const char* kOp = "linear_cross_entropy";
  // y[m] = factor * x[rows[m]]; rows undefined: x[m].
  void (*gather)(const Tensor& y_MD, const Tensor& x_ND, const Tensor& rows_M, double factor);
  // dx[rows[m]] (rows undefined: dx[m]) = factor * dy[m], dy f32 (f64); other rows are left alone.
  void (*scatter)(const Tensor& dx_ND, const Tensor& dy_MD, const Tensor& rows_M, double factor);
  // gradient *= dtotal / expected; dtotal f32 (f64) has one element. Nothing is done when it is as
  // expected.
  void (*rescale)(const Tensor& gradient, const Tensor& dtotal, double expected);
};

// h_ND floating, w [D, V] (or [V, D]) of the same type, or f32 beside bf16, when it is rounded for
// the products and gets an f32 gradient. targets_N i32 in [0, V).
CrossEntropy linear_cross_entropy(const Var& h_ND, const Var& w, const Tensor& targets_N,
                                  const LinearCrossEntropyOptions& options);

// Rows of a chunk when there are `tokens` of them.
int64_t loss_chunk_rows(int64_t tokens, int64_t vocabulary, Device device = Device::cpu);

}  // namespace stmoe
