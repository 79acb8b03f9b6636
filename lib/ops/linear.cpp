// SPDX-License-Identifier: Apache-2.0
// With y = x w (x [n, in], w [in, out]): dx = dy w^T, dw = x^T dy; for y = x w^T the roles of w's
// dimensions swap. A bf16 product keeps its rounded copy of w for the backward pass: rounding it
// again would cost more than the memory.
#include "lib/ops/linear.h"

#include "lib/autograd/tape.h"
#include "lib/base/profile.h"
#include "lib/ops/product.h"

namespace stmoe {
namespace {

// [..., width] as [rows, width].
Tensor as_rows(const Tensor& x) {
  const int64_t width = x.dim(-1);
  int64_t rows = 1;
  for (int d = 0; d + 1 < x.rank(); ++d) rows *= x.dim(d);
  if (x.rank() == 2) return x;
  return x.contiguous().reshape({rows, width});
}

Shape with_width(const Shape& shape, int64_t width) {
  Shape result = shape;
  result[-1] = width;
  return result;
}

void check_types(const char* op, const Var& x, const Var& w) {
  STMOE_CHECK(is_floating(x.dtype()) &&
                  (w.dtype() == x.dtype() || (x.dtype() == DType::bf16 && w.dtype() == DType::f32)),
              "{}: x is {}, w is {}", op, name_of(x.dtype()), name_of(w.dtype()));
}

// The gradients of C = A B, where needed: dA = dC B^T in A's type, dB = A^T dC in `b_dtype`.
std::vector<Tensor> product_gradients(const Tensor& dc, const Tensor& a, const Tensor& b,
                                      DType b_dtype, bool needs_a, bool needs_b) {
  Tensor da, db;
  if (needs_a) {
    da = Tensor::empty(a.shape(), a.dtype(), a.device());
    product(matrix_view(da), matrix_view(dc), matrix_view(b).transposed());
  }
  if (needs_b) {
    db = Tensor::empty(b.shape(), b_dtype, b.device());
    product(matrix_view(db), matrix_view(a).transposed(), matrix_view(dc));
  }
  return {da, db};
}

// As above for C = A B^T: dA = dC B, dB = dC^T A.
std::vector<Tensor> transposed_product_gradients(const Tensor& dc, const Tensor& a, const Tensor& b,
                                                 DType b_dtype, bool needs_a, bool needs_b) {
  Tensor da, db;
  if (needs_a) {
    da = Tensor::empty(a.shape(), a.dtype(), a.device());
    product(matrix_view(da), matrix_view(dc), matrix_view(b));
  }
  if (needs_b) {
    db = Tensor::empty(b.shape(), b_dtype, b.device());
    product(matrix_view(db), matrix_view(dc).transposed(), matrix_view(a));
  }
  return {da, db};
}

Var dense(const char* op, const Var& x, const Var& w, std::optional<DType> result,
          bool is_transposed) {
  OpScope scope(op, OpScope::Pass::forward);
  check_types(op, x, w);
  const DType dtype = result.value_or(x.dtype());
  STMOE_CHECK(x.rank() >= 1 && w.rank() == 2 && x.dim(-1) == w.dim(is_transposed ? 1 : 0),
              "{}: x {} and w {} do not fit", op, x.shape().text(), w.shape().text());
  const Tensor x_NI = as_rows(x.value()), rounded = w.value().to(x.dtype());
  Tensor y_NO = Tensor::empty({x_NI.dim(0), w.dim(is_transposed ? 0 : 1)}, dtype, x.device());
  const MatrixView w_view = matrix_view(rounded);
  product(matrix_view(y_NO), matrix_view(x_NI), is_transposed ? w_view.transposed() : w_view);
  const Tensor y = y_NO.reshape(with_width(x.shape(), y_NO.dim(1)));
  return record(op, y, {x, w},
                [x_NI, rounded, x_shape = x.shape(), w_dtype = w.dtype(), is_transposed,
                 needs_x = x.requires_grad(), needs_w = w.requires_grad()](const Tensor& dy) {
                  const Tensor dy_NO = as_rows(dy).to(x_NI.dtype());
                  auto gradients =
                      (is_transposed ? transposed_product_gradients : product_gradients)(
                          dy_NO, x_NI, rounded, w_dtype, needs_x, needs_w);
                  if (needs_x) gradients[0] = gradients[0].reshape(x_shape);
                  return gradients;
                });
}

}  // namespace

Var linear(const Var& x, const Var& w_IO, std::optional<DType> result) {
  return dense("linear", x, w_IO, result, false);
}

Var linear_transposed(const Var& x, const Var& w_OI, std::optional<DType> result) {
  return dense("linear_transposed", x, w_OI, result, true);
}

Var expert_linear(const Var& x_ECI, const Var& w_EIO) {
  constexpr const char* kOp = "expert_linear";
  OpScope scope(kOp, OpScope::Pass::forward);
  check_types(kOp, x_ECI, w_EIO);
  STMOE_CHECK(x_ECI.rank() == 3 && w_EIO.rank() == 3 && x_ECI.dim(0) == w_EIO.dim(0) &&
                  x_ECI.dim(2) == w_EIO.dim(1),
              "{}: x {} and w {} do not fit", kOp, x_ECI.shape().text(), w_EIO.shape().text());
  const Tensor x = x_ECI.value(), rounded = w_EIO.value().to(x.dtype());
  Tensor y_ECO = Tensor::empty({x.dim(0), x.dim(1), rounded.dim(2)}, x.dtype(), x.device());
  product(matrix_view(y_ECO), matrix_view(x), matrix_view(rounded));
  return record(kOp, y_ECO, {x_ECI, w_EIO},
                [x, rounded, w_dtype = w_EIO.dtype(), needs_x = x_ECI.requires_grad(),
                 needs_w = w_EIO.requires_grad()](const Tensor& dy_ECO) {
                  return product_gradients(dy_ECO, x, rounded, w_dtype, needs_x, needs_w);
                });
}

}  // namespace stmoe
