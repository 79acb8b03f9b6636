// SPDX-License-Identifier: Apache-2.0
// The smallest ops that tests of the tape need, in f64.
#pragma once

#include <functional>

#include "lib/autograd/tape.h"

namespace stmoe::test {

inline Tensor map(const Tensor& a, const Tensor& b, double (*f)(double, double)) {
  const Tensor y = Tensor::empty_like(a);
  const auto p = a.contiguous(), q = b.contiguous();
  for (size_t i = 0; i < y.span<double>().size(); ++i)
    y.span<double>()[i] = f(p.span<double>()[i], q.span<double>()[i]);
  return y;
}

inline double product(double a, double b) { return a * b; }
inline double twice_product(double a, double b) { return 2 * a * b; }
inline double total(double a, double b) { return a + b; }

inline Var square(const Var& x) {
  return record("square", map(x.value(), x.value(), product), {x},
                [value = x.value()](const Tensor& dy) -> std::vector<Tensor> {
                  return {map(dy, value, twice_product)};
                });
}

inline Var times(const Var& x, const Var& y) {
  return record("times", map(x.value(), y.value(), product), {x, y},
                [a = x.value(), b = y.value()](const Tensor& dy) -> std::vector<Tensor> {
                  return {map(dy, b, product), map(dy, a, product)};
                });
}

inline Var plus(const Var& x, const Var& y) {
  return record("plus", map(x.value(), y.value(), total), {x, y},
                [](const Tensor& dy) -> std::vector<Tensor> {
                  return {dy, dy};
                });
}

inline Var turned(const Var& x) {
  return record("turned", x.value().transpose(0, 1), {x},
                [](const Tensor& dy) -> std::vector<Tensor> { return {dy.transpose(0, 1)}; });
}

inline Var number(double value) { return Var::leaf(Tensor::full({1}, DType::f64, value)); }

}  // namespace stmoe::test
