// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/dropout.h"

namespace stmoe {

DropoutSite::DropoutSite(const ParameterScope& scope, std::string_view name,
                         const DropoutPolicy& policy)
    : path_((scope / name).path()), policy_(policy) {}

Dropout DropoutSite::options(const ForwardContext& context) const {
  Dropout result;
  result.rate = context.is_training ? policy_.rate : 0.0;
  result.key = context.key.fold(path_);
  result.broadcast_dim = policy_.is_shared_along_length ? 1 : -1;
  result.first_row = context.first_row;
  return result;
}

Var DropoutSite::forward(const Var& x_BLD, const ForwardContext& context) const {
  const Dropout options = this->options(context);
  return options.rate > 0 ? dropout(x_BLD, options) : x_BLD;
}

}  // namespace stmoe
