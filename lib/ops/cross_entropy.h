// SPDX-License-Identifier: Apache-2.0
// The language-model loss with z-loss and label smoothing (t5x/losses.py):
//   per token: -sum_v soft_v log p_v - H(soft) + z_loss * log(Z)^2
//   soft_v = 1 - s at the target, s / (V - 1) elsewhere; H is its entropy, so a perfect model has
//   loss 0
// Targets equal to 0 (padding) do not count.
#pragma once

#include "lib/autograd/var.h"

namespace stmoe {

struct CrossEntropyOptions {
  double z_loss = 0;           // coefficient of log(Z)^2
  double label_smoothing = 0;  // s, 0 <= s < 1
};

// What the forward kernel finds for each row; zeros where the target does not count.
struct CrossEntropyRows {
  Tensor loss_N, cross_entropy_N;  // f64
  Tensor max_N, log_z_N;           // f64: the largest logit and log(Z)
  Tensor is_correct_N;             // u8
};

struct CrossEntropyKernels {
  static constexpr const char* kOp = "cross_entropy";
  void (*forward)(const CrossEntropyRows& rows, const Tensor& logits_NV, const Tensor& targets_N,
                  const CrossEntropyOptions& options);
  // Both in one reading of the logits, which are used up: dlogits may be them, or bf16.
  void (*forward_and_gradient)(const CrossEntropyRows& rows, const Tensor& dlogits_NV,
                               const Tensor& logits_NV, const Tensor& targets_N, double dtotal,
                               const CrossEntropyOptions& options);
  // dlogits may be logits; dtotal has one element.
  void (*backward)(const Tensor& dlogits_NV, const Tensor& dtotal, const Tensor& logits_NV,
                   const Tensor& targets_N, const CrossEntropyRows& rows,
                   const CrossEntropyOptions& options);
  // What CrossEntropy holds, over the rows; total f32 (f64), sums f64.
  void (*add_up)(const Tensor& total, const Tensor& sums, const CrossEntropyRows& rows,
                 const Tensor& targets_N);
};

// What CrossEntropy::sums holds, on the host.
struct CrossEntropySums {
  double cross_entropy = 0;  // the sum of -log p[target] alone, in nats: what is reported
  int64_t num_targets = 0;   // counted tokens
  int64_t num_correct = 0;   // of them with the target as the first largest logit
};

CrossEntropySums sums_from(std::span<const double> values);

struct CrossEntropy {
  Var total;    // the sum over counted tokens of everything above, [1], f32 (f64)
  Tensor sums;  // f64 [3], on the device of the logits: the fields of CrossEntropySums, in order
  // Waits for the device.
  CrossEntropySums read() const;
};

// logits_NV f32 (or f64), targets_N i32 in [0, V), on the device of the logits. The gradient is
// written over the logits when nothing else holds them by then: let go of them before backward()
// and no second [N, V] tensor is made.
CrossEntropy cross_entropy(const Var& logits_NV, const Tensor& targets_N,
                           const CrossEntropyOptions& options);

// For ops that contain this one. The targets' values are checked where the host can read them.
void check_loss_options(const char* op, const Tensor& targets_N, int64_t vocabulary,
                        const CrossEntropyOptions& options);
CrossEntropyRows empty_loss_rows(int64_t count, Device device);
CrossEntropyRows slice_rows(const CrossEntropyRows& rows, int64_t begin, int64_t end);
// The sums over the rows; `total` is written and returned as the total, a constant.
CrossEntropy add_up(const CrossEntropyRows& rows, const Tensor& targets_N, const Tensor& total);

}  // namespace stmoe
