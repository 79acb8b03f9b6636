// SPDX-License-Identifier: Apache-2.0
// A tensor in a differentiable computation. A Var that needs a gradient carries a node of the tape;
// the values that a backward pass needs are held by the closures that need them, so everything else
// is released as soon as it is unused.
#pragma once

#include <memory>

#include "lib/base/random.h"
#include "lib/tensor/weight_tensor.h"

namespace stmoe {

struct OpRecord;

// Where the gradient of one value is collected.
struct GradNode {
  Tensor grad;
  Tensor rounded;  // of a leaf: see Var::value_as
  bool keeps_rounded = false;
  // Of a leaf whose value is not stored as f32 (WeightTensor):
  WeightStorage storage = WeightStorage::f32;
  Tensor low;
  RandomKey rounding_key;
  std::shared_ptr<OpRecord> producer;  // null for a leaf
};

class Var {
 public:
  Var() = default;
  // A constant.
  explicit Var(Tensor value) : value_(std::move(value)) {}
  // A leaf whose gradient is collected: a weight, or a checked input in tests.
  static Var leaf(Tensor value) {
    Var result(std::move(value));
    result.node_ = std::make_shared<GradNode>();
    return result;
  }

  // A weight in any storage; stochastic roundings are drawn from the key, folded with the update.
  static Var leaf(const WeightTensor& weight, RandomKey rounding_key);

  bool defined() const { return value_.defined(); }
  // Of a weight that is not stored as f32 there is only value_as(bf16), and weight().
  const Tensor& value() const {
    STMOE_CHECK(is_plain(), "the value of a weight that is not stored as f32");
    return value_;
  }
  WeightTensor weight() const {
    return node_ ? WeightTensor{node_->storage, value_, node_->low}
                 : WeightTensor{WeightStorage::f32, value_, {}};
  }
  bool is_plain() const { return !node_ || node_->storage == WeightStorage::f32; }
  RandomKey rounding_key() const { return node_ ? node_->rounding_key : RandomKey{}; }
  const Shape& shape() const { return value_.shape(); }
  int rank() const { return value_.rank(); }
  int64_t dim(int i) const { return value_.dim(i); }
  int64_t numel() const { return value_.numel(); }
  // f32 in any storage.
  DType dtype() const { return is_plain() ? value_.dtype() : DType::f32; }
  Device device() const { return value_.device(); }

  bool requires_grad() const { return node_ != nullptr; }
  // Sum of the gradients of all backward passes since clear_grad; undefined before the first.
  const Tensor& grad() const {
    static const Tensor none;
    return node_ ? node_->grad : none;
  }
  void clear_grad() const {
    if (node_) node_->grad = Tensor();
  }
  void set_grad(Tensor grad) const {
    STMOE_CHECK(node_, "set_grad on a constant");
    node_->grad = std::move(grad);
  }
  // The value in the type of a product (bf16 of an f32 weight); of a weight that is not stored as
  // f32, what is stored as bf16.
  Tensor value_as(DType dtype) const;
  // From now on a leaf keeps the copy that value_as makes: for weights that are asked for more
  // often than they change. Whoever changes one in place renews rounded() or calls value_changed().
  void keep_rounded() const {
    if (node_) node_->keeps_rounded = true;
  }
  // The kept copy; undefined when there is none.
  const Tensor& rounded() const {
    static const Tensor none;
    return node_ ? node_->rounded : none;
  }
  void value_changed() const {
    if (node_) node_->rounded = Tensor();
  }
  // The same value without its history.
  Var detach() const { return Var(value()); }

  const std::shared_ptr<GradNode>& node() const { return node_; }

 private:
  friend struct TapeAccess;
  Tensor value_;
  std::shared_ptr<GradNode> node_;
};

}  // namespace stmoe
