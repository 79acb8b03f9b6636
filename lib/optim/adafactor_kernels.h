// SPDX-License-Identifier: Apache-2.0
// What the kernels of Adafactor (adafactor.h) are told; apart, for the sources of a GPU's kernels.
#pragma once

#include "lib/optim/weight_update.h"

namespace stmoe {

// How one weight is factored: element (b, i, j) of `batches` independent matrices is at b *
// batch_stride + i * row_stride + j * column_stride. Not factored: rows == 0.
struct Factoring {
  int64_t batches = 0, rows = 0, columns = 0;
  int64_t batch_stride = 0, row_stride = 0, column_stride = 0;
  Shape row_shape, column_shape;  // of the slots: the weight's shape without columns, without rows
  bool is_factored() const { return rows > 0; }
};

// AdafactorConfig, as far as kernels need it. Experts: whether each slice of a stack is on its own.
struct AdafactorRule {
  double clipping_threshold, minimum_scale, beta1, weight_decay;
  bool multiply_by_parameter_scale;
  bool factors_experts, scales_experts, clips_experts;
};

// One weight's update; tensors are contiguous f32 (or all f64), but for what the weight is stored
// in.
struct AdafactorUpdate {
  UpdatedWeight weight;
  Tensor gradient;     // left as it is
  Tensor row, column;  // factored
  Tensor second;       // unfactored
  Tensor momentum;     // when beta1 > 0
  const Factoring* factoring;
  int64_t num_slices;  // experts in the stack, 1 otherwise
  double beta2, learning_rate;
};

struct AdafactorKernels {
  static constexpr const char* kOp = "adafactor";
  void (*update)(const AdafactorUpdate& update, const AdafactorRule& rule);
};

}  // namespace stmoe
