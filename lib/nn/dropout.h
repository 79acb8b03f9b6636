// SPDX-License-Identifier: Apache-2.0
// A place in the network where dropout is applied. Every place draws from its own stream, named by
// its path, so masks do not depend on which other places exist.
#pragma once

#include <string>
#include <string_view>

#include "lib/autograd/var.h"
#include "lib/nn/forward_context.h"
#include "lib/nn/parameters.h"
#include "lib/ops/dropout.h"

namespace stmoe {

struct DropoutPolicy {
  double rate = 0;
  // One mask for all positions of a sequence (flaxformer, mesh), and for all queries of an
  // attention head; false: every element has its own (Hugging Face).
  bool is_shared_along_length = true;
};

class DropoutSite {
 public:
  DropoutSite(const ParameterScope& scope, std::string_view name, const DropoutPolicy& policy);
  // x_BLD -> the same shape and type; the identity outside training.
  Var forward(const Var& x_BLD, const ForwardContext& context) const;
  // What an op with a mask of its own needs (attention weights).
  Dropout options(const ForwardContext& context) const;
  bool is_shared_along_length() const { return policy_.is_shared_along_length; }

 private:
  std::string path_;
  DropoutPolicy policy_;
};

}  // namespace stmoe
