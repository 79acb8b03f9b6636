// SPDX-License-Identifier: Apache-2.0
#include "lib/autograd/op_bytes.h"

#include <algorithm>

#include "lib/base/profile.h"

namespace stmoe {
namespace {

std::string text_of(const Tensor& tensor) {
  return format("{} {}", name_of(tensor.dtype()), tensor.shape().text());
}

std::string text_of(std::span<const Tensor> ys, const std::vector<Var>& inputs) {
  std::string text;
  for (const Var& input : inputs)
    if (input.defined())
      text += format("{}{}", text.empty() ? "" : ", ", text_of(input.weight().value));
  text += " ->";
  for (const Tensor& y : ys)
    if (y.defined()) text += format(" {}", text_of(y));
  return text;
}

bool is_same(const std::weak_ptr<const Buffer>& a, const std::weak_ptr<const Buffer>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

// Owners of a buffer that are not among the gradients: one may be written over a value.
long owners_besides(const std::weak_ptr<const Buffer>& buffer, std::span<const Tensor> gradients) {
  return buffer.use_count() -
         std::count_if(gradients.begin(), gradients.end(), [&](const Tensor& gradient) {
           return gradient.defined() && is_same(gradient.buffer(), buffer);
         });
}

}  // namespace

void profile_forward(std::span<const Tensor> ys, const std::vector<Var>& inputs) {
  bool is_view = true;  // reshape and the like move nothing
  size_t bytes = 0;
  for (const Tensor& y : ys) {
    bytes += y.bytes();
    is_view &= std::any_of(inputs.begin(), inputs.end(), [&](const Var& input) {
      return is_same(input.weight().value.buffer(), y.buffer());
    });
  }
  for (const Var& input : inputs) bytes += input.weight().value.bytes();
  describe_op(static_cast<double>(bytes), is_view, text_of(ys, inputs));
}

BackwardBytes::BackwardBytes(std::span<const Tensor> ys, const std::vector<Var>& inputs)
    : detail_(text_of(ys, inputs)) {
  for (const Tensor& y : ys) values_.push_back({y.buffer(), y.bytes()});
  for (const Var& input : inputs)
    values_.push_back({input.weight().value.buffer(), input.weight().value.bytes()});
}

void BackwardBytes::before(std::span<const Tensor> dys, const Nodes& nodes) {
  for (const auto& node : nodes) had_gradient_.push_back(node && node->grad.defined());
  for (Watched& value : values_) value.owners = owners_besides(value.buffer, dys);
  for (const Tensor& dy : dys)
    if (dy.defined()) dys_.push_back({dy.buffer(), dy.bytes()});
}

void BackwardBytes::after(std::span<const Tensor> dxs, const Nodes& nodes) {
  size_t bytes = 0;
  bool moves = false;
  for (const Watched& value : values_) {
    if (owners_besides(value.buffer, dxs) >= value.owners) continue;
    moves = true;
    bytes += value.bytes;
  }
  for (const Tensor& dx : dxs) {
    if (!dx.defined()) continue;
    bytes += dx.bytes();
    moves |= std::none_of(dys_.begin(), dys_.end(),
                          [&](const Watched& dy) { return is_same(dy.buffer, dx.buffer()); });
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const bool is_written_here = nodes[i] && !nodes[i]->producer && !dxs[i].defined();
    if (!is_written_here || !nodes[i]->grad.defined()) continue;
    moves = true;
    bytes += nodes[i]->grad.bytes() * (had_gradient_[i] ? 2 : 1);
  }
  for (const Watched& dy : dys_) bytes += dy.bytes;
  describe_op(static_cast<double>(bytes), !moves, std::move(detail_));
}

}  // namespace stmoe
