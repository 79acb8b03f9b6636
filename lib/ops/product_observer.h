// SPDX-License-Identifier: Apache-2.0
// Somebody who is told of every product that this thread asks for.
#pragma once

#include <span>

#include "lib/ops/product.h"

namespace stmoe {

class ProductObserver {
 public:
  virtual ~ProductObserver() = default;
  virtual void observe(std::span<const Product> list, bool accumulate) = 0;
};

// One at a time, while this lives.
class ProductObserverScope {
 public:
  explicit ProductObserverScope(ProductObserver& observer);
  ~ProductObserverScope();
  ProductObserverScope(const ProductObserverScope&) = delete;
  ProductObserverScope& operator=(const ProductObserverScope&) = delete;
};

}  // namespace stmoe
