// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/add.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/gradient_buffer.h"

namespace stmoe {
namespace {

void check_same(const char* op, const Var& x, const Var& y) {
  STMOE_CHECK(x.shape() == y.shape() && x.dtype() == y.dtype() && is_floating(x.dtype()),
              "{}: operands are {} {} and {} {}", op, name_of(x.dtype()), x.shape().text(),
              name_of(y.dtype()), y.shape().text());
}

}  // namespace

Var add(const Var& x, const Var& y) {
  OpScope scope("add", OpScope::Pass::forward);
  check_same("add", x, y);
  const Tensor a = x.value().contiguous(), b = y.value().contiguous();
  const Tensor total = Tensor::empty_like(a);
  kernels<AddKernels>(a.device()).add(total, a, b);
  return record("add", total, {x, y}, [](const Tensor& dy) -> std::vector<Tensor> {
    return {dy, dy};
  });
}

Var multiply(const Var& x, const Var& y) {
  OpScope scope("multiply", OpScope::Pass::forward);
  check_same("multiply", x, y);
  const Tensor a = x.value().contiguous(), b = y.value().contiguous();
  const Tensor product = Tensor::empty_like(a);
  kernels<AddKernels>(a.device()).multiply(product, a, b);
  return record("multiply", product, {x, y}, [a, b](const Tensor& dy) -> std::vector<Tensor> {
    const auto& kernel = kernels<AddKernels>(a.device());
    const Tensor da = Tensor::empty_like(a), db = gradient_buffer(dy);
    kernel.multiply(da, dy, b);
    kernel.multiply(db, dy, a);
    return {da, db};
  });
}

Var scale(const Var& x, double c) {
  OpScope scope("scale", OpScope::Pass::forward);
  STMOE_CHECK(is_floating(x.dtype()), "scale: x is {}", name_of(x.dtype()));
  const Tensor input = x.value().contiguous();
  const Tensor y = Tensor::empty_like(input);
  kernels<AddKernels>(y.device()).scale(y, input, c);
  return record("scale", y, {x}, [c](const Tensor& dy) -> std::vector<Tensor> {
    const Tensor dx = gradient_buffer(dy);
    kernels<AddKernels>(dy.device()).scale(dx, dy, c);
    return {dx};
  });
}

Var weighted_sum(const std::vector<Var>& terms, const std::vector<double>& coefficients) {
  OpScope scope("weighted_sum", OpScope::Pass::forward);
  STMOE_CHECK(!terms.empty() && terms.size() == coefficients.size(),
              "weighted_sum: {} terms, {} coefficients", terms.size(), coefficients.size());
  std::vector<Tensor> values;
  DType dtype = DType::f32;
  for (const Var& term : terms) {
    STMOE_CHECK(term.numel() == 1 && is_floating(term.dtype()),
                "weighted_sum: term {} is {} {}, expected one floating element", values.size(),
                name_of(term.dtype()), term.shape().text());
    if (term.dtype() == DType::f64) dtype = DType::f64;
    values.push_back(term.value());
  }
  const Tensor total = Tensor::empty({1}, dtype, terms[0].device());
  kernels<AddKernels>(total.device()).weighted_sum(total, values, coefficients);
  std::vector<std::pair<Shape, DType>> kinds;
  for (const Tensor& value : values) kinds.emplace_back(value.shape(), value.dtype());
  return record("weighted_sum", total, terms, [kinds, coefficients](const Tensor& dy) {
    std::vector<Tensor> dxs;
    for (size_t i = 0; i < kinds.size(); ++i) {
      const Tensor scaled = Tensor::empty_like(dy);
      kernels<AddKernels>(dy.device()).scale(scaled, dy, coefficients[i]);
      dxs.push_back(scaled.to(kinds[i].second).reshape(kinds[i].first));
    }
    return dxs;
  });
}

Var sum(const Var& x) {
  OpScope scope("sum", OpScope::Pass::forward);
  STMOE_CHECK(is_floating(x.dtype()), "sum: x is {}", name_of(x.dtype()));
  const Tensor input = x.value().contiguous();
  const DType dtype = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor total = Tensor::empty({1}, dtype, x.device());
  kernels<AddKernels>(total.device()).sum(total, input);
  return record("sum", total, {x},
                [shape = x.shape(), kind = x.dtype()](const Tensor& dy) -> std::vector<Tensor> {
                  const Tensor dx = Tensor::empty(shape, kind, dy.device());
                  kernels<AddKernels>(dy.device()).spread(dx, dy);
                  return {dx};
                });
}

Var cast(const Var& x, DType dtype) {
  OpScope scope("cast", OpScope::Pass::forward);
  STMOE_CHECK(is_floating(x.dtype()) && is_floating(dtype), "cast: {} to {}", name_of(x.dtype()),
              name_of(dtype));
  if (x.dtype() == dtype) return x;
  return record(
      "cast", x.value().to(dtype), {x},
      [before = x.dtype()](const Tensor& dy) -> std::vector<Tensor> { return {dy.to(before)}; });
}

}  // namespace stmoe
