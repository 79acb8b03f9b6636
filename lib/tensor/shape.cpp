// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/shape.h"

namespace stmoe {

std::string Shape::text() const { return format("[{}]", fmt::join(dims(), ", ")); }

}  // namespace stmoe
