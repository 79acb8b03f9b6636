// SPDX-License-Identifier: Apache-2.0
// Which products a piece of work needs, and a device's choice of algorithms for them by timing
// (stmoe-pretrain --autotune).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lib/ops/product.h"

namespace stmoe {

// Asked for `count` times. The matrices' addresses are of the time of recording: only their
// alignment may still be asked for.
struct RecordedProduct {
  Product product;
  bool accumulate = false;
  int64_t count = 1;
};

// All products that `work` asks for on this thread, each once, in the order of first asking.
// Planned work (PlanScope) needs no device for it.
std::vector<RecordedProduct> record_products(const std::function<void()>& work);

struct ProductTuningKernels {
  static constexpr const char* kOp = "product tuning";
  // Times what the device's library offers for each product, on random numbers, keeps the fastest
  // in the file of algorithms, and returns a table of what was found.
  std::string (*tune)(std::span<const RecordedProduct> products);
};

}  // namespace stmoe
