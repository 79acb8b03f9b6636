// SPDX-License-Identifier: Apache-2.0
// One object per op that tests, differentiates and times it (after ggml's test-backend-ops). A case
// says how to call the op and what it should give, computed the naive way in f64; check_op derives
// the tests from that. How to add one: docs/design/testing.md.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/autograd/var.h"
#include "tests/support/close.h"

namespace stmoe::test {

// A floating input, drawn uniformly from [low, high]. Integer inputs and options are captured by
// the call instead.
struct OpInput {
  Shape shape;
  double low = -1, high = 1;
  double away_from_zero = 0;      // least magnitude: keeps central differences off a kink at 0
  bool is_differentiable = true;  // false: passed as a constant
  bool is_weight = false;  // f32 when the case runs in bf16, as master weights and norm scales are
};

struct OpArguments {
  std::vector<Var> inputs;
  DType dtype;  // the type under test
  Device device = Device::cpu;
  // A captured tensor where the inputs are.
  Tensor on_device(const Tensor& tensor) const {
    return tensor.defined() ? tensor.on(device) : tensor;
  }
  const Var& operator[](size_t i) const { return inputs[i]; }
};

// What an op returns: one Var or several.
struct OpResults : std::vector<Var> {
  OpResults(Var y) : std::vector<Var>{std::move(y)} {}
  OpResults(std::vector<Var> ys) : std::vector<Var>(std::move(ys)) {}
};

// One flat row-major array per input or output.
using OpValues = std::vector<std::vector<double>>;

struct OpTolerances {
  Tolerance f64 = Tolerance::of(DType::f64);
  Tolerance f32 = Tolerance::of(DType::f32);
  Tolerance bf16 = Tolerance::of(DType::bf16);
  Tolerance of(DType dtype) const {
    return dtype == DType::f64 ? f64 : dtype == DType::f32 ? f32 : bf16;
  }
};

struct OpCase {
  std::string name;  // also seeds the values
  std::vector<OpInput> inputs;
  std::function<OpResults(const OpArguments&)> call;
  std::function<OpValues(const OpValues&)> reference;
  std::vector<DType> dtypes = {DType::f64, DType::f32, DType::bf16};
  OpTolerances tolerance = {};           // of results against the reference
  OpTolerances gradient_tolerance = {};  // of f32 and bf16 gradients against the f64 ones
  bool admits_views = true;              // false: the op asks for contiguous inputs
  bool is_thread_invariant = true;  // false: the bits may depend on the number of threads (say why)
  // For time_op. Bytes default to what must move: inputs and results once, gradients likewise.
  double flops = 0;  // of the forward pass
  std::function<double(DType)> forward_bytes = {}, backward_bytes = {};
};

// Runs every test that follows from a case, under guarded buffers that start as NaN; for each
// element type:
//  - results against the reference, and the same bits with and without recording;
//  - f64: the gradient of a random linear functional of all results against central differences
//  (each element of an input
//    of up to 256, else four random directions);
//  - f32, bf16: gradients against the f64 ones at the same values; their element types;
//  - nearly the same from the kernels of every lower CPU level (lib/base/cpu_level.h);
//  - f32, bf16: nearly the same from the kernels of a GPU, emulated and, where there is one, real,
//  and there twice the same bits;
//  - inputs as transposed and as sliced views;
//  - the same bits with one thread and with three.
void check_op(const OpCase& op_case);
void check_ops(const std::vector<OpCase>& cases);

// Prints time, GB/s and GFLOP/s of the forward and backward pass in f32 and bf16, in a step arena
// as in training.
void time_op(const OpCase& op_case);

}  // namespace stmoe::test
