// SPDX-License-Identifier: Apache-2.0
// With y = x w (x [n, in], w [in, out]): dx = dy w^T, dw = x^T dy; for y = x w^T the roles of w's
// dimensions swap. A bf16 product uses the weight's rounded copy (Var::value_as).
#include "lib/ops/linear.h"

#include <algorithm>
#include <vector>

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

// What the backward pass of y = x w (or x w^T) needs.
struct DenseProduct {
  Tensor x_NI, rounded;  // w in x's type
  Shape x_shape;
  DType w_dtype;
  bool is_transposed, needs_x, needs_w;
  LeafGradient w_gradient;

  std::vector<Tensor> gradients(const Tensor& dy) const {
    const Tensor dy_NO = as_rows(dy).to(x_NI.dtype());
    Tensor dx, dw;
    if (needs_x) {
      dx = Tensor::empty(x_NI.shape(), x_NI.dtype(), x_NI.device());
      const MatrixView w = matrix_view(rounded);
      product(matrix_view(dx), matrix_view(dy_NO), is_transposed ? w : w.transposed());
      dx = dx.reshape(x_shape);
    }
    if (needs_w && w_gradient.is_leaf()) {
      w_gradient.add([&](const Tensor& sum, bool accumulate) { add_dw(sum, dy_NO, accumulate); });
    } else if (needs_w) {
      dw = Tensor::empty(rounded.shape(), w_dtype, x_NI.device());
      add_dw(dw, dy_NO, false);
    }
    return {dx, dw};
  }

 private:
  void add_dw(const Tensor& dw, const Tensor& dy_NO, bool accumulate) const {
    if (is_transposed)
      product(matrix_view(dw), matrix_view(dy_NO).transposed(), matrix_view(x_NI), accumulate);
    else
      product(matrix_view(dw), matrix_view(x_NI).transposed(), matrix_view(dy_NO), accumulate);
  }
};

// The rows of each expert in a buffer, and the products over them.
class ExpertRows {
 public:
  ExpertRows(const ExpertRanges& ranges, int64_t num_experts, int64_t num_rows)
      : per_expert_(ranges.rows_per_expert), num_rows_(num_rows) {
    if (per_expert_ > 0) {
      STMOE_CHECK(num_experts * per_expert_ == num_rows,
                  "expert_linear: {} experts of {} rows each in {} rows", num_experts, per_expert_,
                  num_rows);
      return;
    }
    const auto first = ranges.first_row_E1.span<int32_t>();
    first_.assign(first.begin(), first.end());
    STMOE_CHECK(std::ssize(first_) == num_experts + 1 && first_.front() == 0 &&
                    std::ranges::is_sorted(first_) && first_.back() <= num_rows,
                "expert_linear: {} experts over {} rows have {} borders, the last is {}",
                num_experts, num_rows, first_.size(), first_.back());
  }

  // y[r] = x[r] w[e]; zeros in the rows of nobody.
  void multiply(const Tensor& y, const Tensor& x, const MatrixView& w) const {
    if (per_expert_ > 0) return product(batch(y), batch(x), w);
    const auto one_expert = [&](size_t e, int64_t begin, int64_t count) -> Product {
      return {matrix_view(y).part(0, begin, count, 0, y.dim(1)),
              matrix_view(x).part(0, begin, count, 0, x.dim(1)),
              w.part(static_cast<int64_t>(e), 0, w.rows, 0, w.cols)};
    };
    run(one_expert, false);
    if (first_.back() < num_rows_) y.slice(0, first_.back(), num_rows_).fill(0);
  }

  // dw[e] (+)= x[rows of e]^T dy[rows of e].
  void multiply_transposed(const Tensor& dw, const Tensor& x, const Tensor& dy,
                           bool accumulate) const {
    if (per_expert_ > 0)
      return product(matrix_view(dw), batch(x).transposed(), batch(dy), accumulate);
    const auto one_expert = [&](size_t e, int64_t begin, int64_t count) -> Product {
      return {matrix_view(dw).part(static_cast<int64_t>(e), 0, dw.dim(1), 0, dw.dim(2)),
              matrix_view(x).part(0, begin, count, 0, x.dim(1)).transposed(),
              matrix_view(dy).part(0, begin, count, 0, dy.dim(1))};
    };
    run(one_expert, accumulate);
  }

 private:
  // One matrix for each expert.
  MatrixView batch(const Tensor& rows) const {
    MatrixView view = matrix_view(rows);
    view.batch = num_rows_ / per_expert_;
    view.rows = per_expert_;
    view.batch_stride = per_expert_ * view.row_stride;
    return view;
  }
  template <class MakeProduct>
  void run(const MakeProduct& make, bool accumulate) const {
    std::vector<Product> list;
    for (size_t e = 0; e + 1 < first_.size(); ++e)
      list.push_back(make(e, first_[e], first_[e + 1] - first_[e]));
    products(list, accumulate);
  }

  int64_t per_expert_, num_rows_;
  std::vector<int64_t> first_;  // unless padded
};

Var dense(const char* op, const Var& x, const Var& w, std::optional<DType> result,
          bool is_transposed) {
  OpScope scope(op, OpScope::Pass::forward);
  check_types(op, x, w);
  const DType dtype = result.value_or(x.dtype());
  STMOE_CHECK(x.rank() >= 1 && w.rank() == 2 && x.dim(-1) == w.dim(is_transposed ? 1 : 0),
              "{}: x {} and w {} do not fit", op, x.shape().text(), w.shape().text());
  const Tensor x_NI = as_rows(x.value()), rounded = w.value_as(x.dtype());
  Tensor y_NO = Tensor::empty({x_NI.dim(0), w.dim(is_transposed ? 0 : 1)}, dtype, x.device());
  const MatrixView w_view = matrix_view(rounded);
  product(matrix_view(y_NO), matrix_view(x_NI), is_transposed ? w_view.transposed() : w_view);
  const Tensor y = y_NO.reshape(with_width(x.shape(), y_NO.dim(1)));
  const DenseProduct saved = {x_NI,          rounded,           x.shape(),         w.dtype(),
                              is_transposed, x.requires_grad(), w.requires_grad(), LeafGradient(w)};
  return record(op, y, {x, w}, [saved](const Tensor& dy) { return saved.gradients(dy); });
}

}  // namespace

Var linear(const Var& x, const Var& w_IO, std::optional<DType> result) {
  return dense("linear", x, w_IO, result, false);
}

Var linear_transposed(const Var& x, const Var& w_OI, std::optional<DType> result) {
  return dense("linear_transposed", x, w_OI, result, true);
}

Var expert_linear(const Var& x_RI, const Var& w_EIO, const ExpertRanges& ranges) {
  constexpr const char* kOp = "expert_linear";
  OpScope scope(kOp, OpScope::Pass::forward);
  check_types(kOp, x_RI, w_EIO);
  STMOE_CHECK(x_RI.rank() == 2 && w_EIO.rank() == 3 && x_RI.dim(1) == w_EIO.dim(1),
              "{}: x {} and w {} do not fit", kOp, x_RI.shape().text(), w_EIO.shape().text());
  const ExpertRows rows(ranges, w_EIO.dim(0), x_RI.dim(0));
  const Tensor x = x_RI.value().contiguous(), rounded = w_EIO.value_as(x.dtype());
  const Tensor y_RO = Tensor::empty({x.dim(0), rounded.dim(2)}, x.dtype(), x.device());
  rows.multiply(y_RO, x, matrix_view(rounded));
  return record(kOp, y_RO, {x_RI, w_EIO},
                [rows, x, rounded, w_dtype = w_EIO.dtype(), needs_x = x_RI.requires_grad(),
                 needs_w = w_EIO.requires_grad(),
                 w_gradient = LeafGradient(w_EIO)](const Tensor& dy_RO) -> std::vector<Tensor> {
                  Tensor dx, dw;
                  if (needs_x) {
                    dx = Tensor::empty_like(x);
                    rows.multiply(dx, dy_RO, matrix_view(rounded).transposed());
                  }
                  if (needs_w && w_gradient.is_leaf()) {
                    w_gradient.add([&](const Tensor& sum, bool accumulate) {
                      rows.multiply_transposed(sum, x, dy_RO, accumulate);
                    });
                  } else if (needs_w) {
                    dw = Tensor::empty(rounded.shape(), w_dtype, x.device());
                    rows.multiply_transposed(dw, x, dy_RO, false);
                  }
                  return {dx, dw};
                });
}

}  // namespace stmoe
