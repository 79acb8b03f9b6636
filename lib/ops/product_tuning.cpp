// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/product_tuning.h"

#include <map>
#include <tuple>
#include <utility>

#include "lib/ops/product_observer.h"

namespace stmoe {
namespace {

// Of an address, what alignment may hang on.
auto shape_of(const MatrixView& view) {
  return std::tuple(reinterpret_cast<uintptr_t>(view.data) % 256, view.dtype, view.batch, view.rows,
                    view.cols, view.batch_stride, view.row_stride, view.col_stride);
}

class Recorder final : public ProductObserver {
 public:
  void observe(std::span<const Product> list, bool accumulate) override {
    for (const Product& product : list) {
      const auto [place, is_new] = places_.try_emplace(
          {shape_of(product.c), shape_of(product.a), shape_of(product.b), accumulate},
          found_.size());
      if (is_new)
        found_.push_back({product, accumulate, 1});
      else
        ++found_[place->second].count;
    }
  }
  std::vector<RecordedProduct> take() { return std::move(found_); }

 private:
  using ShapeKey = decltype(shape_of(MatrixView{}));
  std::map<std::tuple<ShapeKey, ShapeKey, ShapeKey, bool>, size_t> places_;
  std::vector<RecordedProduct> found_;
};

}  // namespace

std::vector<RecordedProduct> record_products(const std::function<void()>& work) {
  Recorder recorder;
  const ProductObserverScope scope(recorder);
  work();
  return recorder.take();
}

}  // namespace stmoe
