// SPDX-License-Identifier: Apache-2.0
// Numbers that a step leaves on its device, brought to the host together: a step waits for its
// device once, however many losses and statistics it has.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "lib/tensor/tensor.h"

namespace stmoe {

class Readout {
 public:
  // The elements in order, converted to f64.
  using Reader = std::function<void(std::span<const double> values)>;

  // `reader` is called by read(), in the order of adding, and the tensor is kept until collect();
  // of a tensor that the host can read anyway, at once, and nothing is kept.
  void add(const Tensor& values, Reader reader);
  // Puts what was added so far side by side on the device; does not wait.
  void collect();
  // Waits, and calls the readers. Collects first where that was not done.
  void read();

 private:
  struct Part {
    Tensor values;
    int64_t count;
    Reader reader;
  };
  std::vector<Part> parts_;
  Tensor collected_;
};

}  // namespace stmoe
