// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/product.h"

#include <vector>

#include "lib/ops/product_observer.h"

namespace stmoe {
namespace {

thread_local ProductObserver* observer = nullptr;

void check_product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  STMOE_CHECK(c.rows == a.rows && c.cols == b.cols && a.cols == b.rows && a.batch == b.batch &&
                  a.batch == c.batch,
              "product: {} x [{}, {}] = [{}, {}] x [{}, {}] ({} matrices)", c.batch, c.rows, c.cols,
              a.rows, a.cols, b.rows, b.cols, a.batch);
  STMOE_CHECK(a.dtype == b.dtype && is_floating(a.dtype), "product: of {} and {}", name_of(a.dtype),
              name_of(b.dtype));
  STMOE_CHECK(c.dtype == a.dtype || (c.dtype == DType::f32 && a.dtype == DType::bf16),
              "product: of {} into {}", name_of(a.dtype), name_of(c.dtype));
  STMOE_CHECK(c.col_stride == 1 || c.cols <= 1,
              "product: the rows of the result are not contiguous");
  STMOE_CHECK(!accumulate || c.dtype != DType::bf16, "product: bf16 results cannot be added up");
}

}  // namespace

ProductType product_type(DType dtype) {
  return dtype == DType::bf16  ? ProductType::bf16
         : dtype == DType::f64 ? ProductType::f64
                               : ProductType::f32;
}

ProductShape profile_shape(const Product& product, bool accumulate) {
  const auto& [c, a, b] = product;
  auto bytes = [](const MatrixView& view) {
    return static_cast<double>(view.batch) * static_cast<double>(view.rows) *
           static_cast<double>(view.cols) * static_cast<double>(size_of(view.dtype));
  };
  auto is_transposed = [](const MatrixView& view) {
    return view.col_stride != 1 && view.cols > 1 && view.row_stride == 1;
  };
  return {.batch = c.batch,
          .m = c.rows,
          .n = c.cols,
          .k = a.cols,
          .is_a_transposed = is_transposed(a),
          .is_b_transposed = is_transposed(b),
          .accumulates = accumulate,
          .type = product_type(a.dtype),
          .bytes = bytes(a) + bytes(b) + bytes(c) * (accumulate ? 2 : 1),
          .note = c.dtype == a.dtype ? "" : "-> f32"};
}

namespace {

// A list counts as one product that is as high, or sums over as much, as all of them together.
ProductShape profile_shape(std::span<const Product> list, bool accumulate) {
  ProductShape shape = profile_shape(list[0], accumulate);
  for (const Product& next : list.subspan(1)) {
    const ProductShape more = profile_shape(next, accumulate);
    shape.is_a_transposed ? shape.k += more.k : shape.m += more.m;
    shape.bytes += more.bytes;
  }
  if (list.size() > 1) shape.note = "experts";
  return shape;
}

}  // namespace

MatrixView MatrixView::transposed() const {
  MatrixView result = *this;
  std::swap(result.rows, result.cols);
  std::swap(result.row_stride, result.col_stride);
  return result;
}

MatrixView MatrixView::part(int64_t index, int64_t row, int64_t num_rows, int64_t col,
                            int64_t num_cols) const {
  MatrixView result = *this;
  result.data += (index * batch_stride + row * row_stride + col * col_stride) *
                 static_cast<int64_t>(size_of(dtype));
  result.batch = 1;
  result.rows = num_rows;
  result.cols = num_cols;
  return result;
}

MatrixView matrix_view(const Tensor& tensor) {
  STMOE_CHECK(tensor.rank() == 2 || tensor.rank() == 3, "product: of a tensor {}",
              tensor.shape().text());
  MatrixView view{tensor.raw(),      tensor.dtype(),    1,
                  tensor.dim(-2),    tensor.dim(-1),    0,
                  tensor.stride(-2), tensor.stride(-1), tensor.device()};
  if (tensor.rank() == 3) {
    view.batch = tensor.dim(0);
    view.batch_stride = tensor.stride(0);
  }
  return view;
}

void products(std::span<const Product> list, bool accumulate) {
  std::vector<Product> full;
  for (const Product& one : list) {
    check_product(one.c, one.a, one.b, accumulate);
    if (one.c.batch * one.c.rows * one.c.cols > 0 && (one.a.cols > 0 || !accumulate))
      full.push_back(one);
  }
  if (full.empty()) return;
  if (observer) observer->observe(full, accumulate);
  const ProductScope scope(profile_shape(full, accumulate));
  kernels<ProductKernels>(full[0].c.device).multiply(full, accumulate);
}

ProductObserverScope::ProductObserverScope(ProductObserver& told) {
  STMOE_CHECK(observer == nullptr, "product: observed already");
  observer = &told;
}
ProductObserverScope::~ProductObserverScope() { observer = nullptr; }

void product(const MatrixView& c, const MatrixView& a, const MatrixView& b, bool accumulate) {
  const Product one{c, a, b};
  products({&one, 1}, accumulate);
}

}  // namespace stmoe
