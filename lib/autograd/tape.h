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
//  - it is called at most once and released right after, with everything it holds;
//  - the gradient of a weight may go straight into the sum that the weight collects (LeafGradient):
//    the closure then returns an undefined tensor for that input.
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

// Where an op's closure writes or adds the gradient of a leaf, so that weights used by several ops
// or micro-batches need neither zeros to start from nor a second tensor to be added.
class LeafGradient {
 public:
  // Of an op's input: empty unless it is a leaf that needs a gradient.
  explicit LeafGradient(const Var& input);
  bool is_leaf() const { return node_ != nullptr; }

  // Calls fill(sum, accumulate): `sum` is contiguous, of the leaf's shape and type; it holds
  // nothing yet and is to be written when accumulate is false, else it is to be added to.
  template <class Fill>
  void add(Fill&& fill) const {
    const bool is_first = !node_->grad.defined();
    if (is_first)
      node_->grad = Tensor::empty(shape_, dtype_, device_);
    else if (node_->grad.is_shared())
      node_->grad = node_->grad.clone();
    fill(static_cast<const Tensor&>(node_->grad), !is_first);
  }

 private:
  std::shared_ptr<GradNode> node_;
  Shape shape_;
  DType dtype_;
  Device device_;
};

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
