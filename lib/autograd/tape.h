// SPDX-License-Identifier: Apache-2.0
// Reverse-mode differentiation. Each op records its outputs with a closure that turns the outputs'
// gradients into the inputs' gradients. Conventions, stated once:
//  - a closure returns one gradient per input, in the inputs' order, each with the input's shape;
//    undefined where the input needs none. The gradients that it is given are contiguous;
//  - it never adds into an existing gradient: only the tape sums. It may return one of its
//    arguments unchanged, and may overwrite one that is not shared (Tensor::is_shared);
//  - the gradient has the input's element type, except that an f32 weight used in a bf16 product
//    gets an f32 gradient;
//  - a closure captures the Tensors it needs and no Var (a Var would keep the history alive);
//  - it is called at most once and released right after, with everything it holds.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "lib/autograd/var.h"

namespace stmoe {

using BackwardFunction = std::function<std::vector<Tensor>(const Tensor& dy)>;
// Entries of `dys` are undefined for outputs that nothing depends on.
using BackwardManyFunction = std::function<std::vector<Tensor>(std::span<const Tensor> dys)>;

// The result of an op with one output. `op` is a string literal: it names the op in profiles and
// errors.
Var record(const char* op, Tensor y, const std::vector<Var>& inputs, BackwardFunction backward);
std::vector<Var> record_many(const char* op, std::vector<Tensor> ys, const std::vector<Var>& inputs,
                             BackwardManyFunction backward);

// Whether an op over these inputs would be recorded: ops skip saving tensors when it is not.
bool will_record(const std::vector<Var>& inputs);
bool grad_enabled();

// No op is recorded on this thread while one of these lives.
class NoGradScope {
 public:
  NoGradScope();
  ~NoGradScope();
  NoGradScope(const NoGradScope&) = delete;
  NoGradScope& operator=(const NoGradScope&) = delete;

 private:
  bool before_;
};

// Adds d(loss)/d(leaf) to the gradient of every leaf that a one-element loss depends on. The tape
// below `loss` is used up.
void backward(const Var& loss);
// The same from several values with given gradients.
void backward(const std::vector<Var>& values, const std::vector<Tensor>& gradients);

// Activation checkpointing: runs `block` without recording and runs it again, recording, when its
// gradient is needed. `block` must be a pure function of `inputs` and of leaves; its random numbers
// are counter-based, so they repeat.
std::vector<Var> recompute(std::function<std::vector<Var>(const std::vector<Var>&)> block,
                           const std::vector<Var>& inputs);

}  // namespace stmoe
