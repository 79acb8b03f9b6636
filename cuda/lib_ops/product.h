// SPDX-License-Identifier: Apache-2.0
// The plans of this process's products, and their algorithms.
#pragma once

#include "cuda/lib_ops/product_plan.h"

namespace stmoe::gpu {

// Where the products of stream() have their partial sums.
std::byte* workspace();

// Takes these instead of what plans made so far have, and instead of the file's.
void use_algorithms(const Algorithms& algorithms);

}  // namespace stmoe::gpu
