// SPDX-License-Identifier: Apache-2.0
// Bytes that an op must move, for the profile: the tensors that it reads and writes, once each. The
// forward pass: inputs and outputs. The backward pass: gradients in and out, and those inputs and
// outputs that the op's closure kept (a closure that kept one is an owner less when it is
// released); no byte for a gradient that is passed on as it is.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/autograd/var.h"

namespace stmoe {

// Reports the forward pass to the innermost OpScope.
void profile_forward(std::span<const Tensor> ys, const std::vector<Var>& inputs);

class BackwardBytes {
 public:
  // When the op is recorded.
  BackwardBytes(std::span<const Tensor> ys, const std::vector<Var>& inputs);
  // Before the closure runs, and after it is released: the latter reports. `nodes` are the inputs',
  // null where no gradient is needed: a closure may add into a leaf's itself.
  using Nodes = std::vector<std::shared_ptr<GradNode>>;
  void before(std::span<const Tensor> dys, const Nodes& nodes);
  void after(std::span<const Tensor> dxs, const Nodes& nodes);

 private:
  struct Watched {
    std::weak_ptr<const Buffer> buffer;
    size_t bytes;
    long owners = 0;
  };
  std::vector<Watched> values_;
  std::vector<Watched> dys_;
  std::vector<bool> had_gradient_;  // by node
  std::string detail_;
};

}  // namespace stmoe
