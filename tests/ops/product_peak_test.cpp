// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/product_peak.h"

#include <catch2/catch.hpp>

#include "lib/base/clock.h"
#include "lib/base/threads.h"
#include "lib/ops/product.h"

namespace stmoe {

TEST_CASE("the product peak is of the order of a real product", "[ops][product]") {
  const double peak = measure_product_peak(DType::f32, 0.05);
  const Tensor a = Tensor::full({512, 512}, DType::f32, 1),
               b = Tensor::full({512, 512}, DType::f32, 1),
               c = Tensor::empty({512, 512}, DType::f32);
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const Stopwatch watch;
    product(matrix_view(c), matrix_view(a), matrix_view(b));
    best = std::min(best, watch.seconds());
  }
  REQUIRE(c.data<float>()[7] == 512.0f);
  // An order of magnitude: other programs may take the cores from either measurement.
  REQUIRE(2.0 * 512 * 512 * 512 / best < 10 * peak);
  REQUIRE(measure_product_peak(DType::f64, 0.02) < 10 * peak);
}

TEST_CASE("product peak", "[.bench]") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    WARN("product peak " << name_of(dtype) << ": " << measure_product_peak(dtype) / 1e9
                         << " GFLOP/s on " << num_threads() << " threads");
}

}  // namespace stmoe
