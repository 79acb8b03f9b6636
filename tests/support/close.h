// SPDX-License-Identifier: Apache-2.0
// Comparison of tensors. An element is close when |actual - expected| <= absolute + relative *
// |expected|; the share of that bound which the worst element uses is printed on failure, so that a
// tolerance can be judged.
#pragma once

#include <string>
#include <vector>

#include "lib/tensor/tensor.h"

namespace stmoe::test {

struct Tolerance {
  double absolute = 0, relative = 0;
  // What a kernel that computes in this element type should reach on values near one: f64 1e-10,
  // f32 1e-5, bf16 1e-2.
  static Tolerance of(DType dtype);
  static Tolerance exact() { return {0, 0}; }
};

// All elements as f64 in row-major order, whatever the type and the strides.
std::vector<double> values_of(const Tensor& tensor);

// Fails the running test, naming the worst element, both values and the fraction of the tolerance
// used. A NaN is close only to a NaN, an infinity only to itself. Shapes must be equal; element
// types may differ.
void require_close(const Tensor& actual, const Tensor& expected, Tolerance tolerance);
// `expected` in row-major order.
void require_close(const Tensor& actual, const std::vector<double>& expected, Tolerance tolerance);
void require_close(double actual, double expected, Tolerance tolerance);

// Fails unless shape, element type and every byte agree.
void require_same_bits(const Tensor& actual, const Tensor& expected);

}  // namespace stmoe::test
