// SPDX-License-Identifier: Apache-2.0
// How a weight starts. A value is a pure function of (key, index of the element): threads, layouts
// and the order in which weights are made do not change it. Normal values come from inverting the
// distribution function (Wichura 1988, AS 241) at a uniform value of 32 bits, so they lie
// within 6.4 standard deviations.
#pragma once

#include "lib/base/random.h"
#include "lib/tensor/tensor.h"

namespace stmoe {

struct Initializer {
  enum class Kind { normal, truncated_normal, uniform, constant };
  Kind kind = Kind::constant;
  // The standard deviation, the half width of a uniform distribution around zero, or the constant.
  // Of a truncated normal it is the deviation before values beyond two deviations are cut off,
  // without a correction for the cut (Mesh TensorFlow; Fedus et al. 2021, section 2.4).
  double value = 0;

  static Initializer normal(double deviation) { return {Kind::normal, deviation}; }
  static Initializer truncated_normal(double deviation) {
    return {Kind::truncated_normal, deviation};
  }
  static Initializer uniform(double half_width) { return {Kind::uniform, half_width}; }
  static Initializer constant(double value) { return {Kind::constant, value}; }
};

// Fills a contiguous f32 or f64 tensor; element i depends on (key, i) only. All compute threads.
void initialize(const Tensor& values, const Initializer& initializer, RandomKey key);

}  // namespace stmoe
