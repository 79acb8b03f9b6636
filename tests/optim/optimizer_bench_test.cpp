// SPDX-License-Identifier: Apache-2.0
// Time of one update against the bytes that must move at least: Adafactor reads gradient and weight
// and writes the weight (its moments are vectors), AdamW also reads and writes two moments.
// Bandwidth of the machine: a plain triad.
#include <cstdio>

#include <catch2/catch.hpp>

#include "lib/base/clock.h"
#include "lib/base/threads.h"
#include "lib/optim/gradients.h"
#include "tests/optim/formula.h"

namespace stmoe::test {
namespace {

void report(const std::string& name, double bytes, double seconds) {
  std::printf("%-44s %9.3f ms %8.1f GB/s\n", name.c_str(), seconds * 1e3, bytes / seconds * 1e-9);
  std::fflush(stdout);
}

template <class Body>
double best_seconds(Body&& body) {
  double best = 1e30;
  Stopwatch whole;
  for (int run = 0; run < 5 || whole.seconds() < 1.5; ++run) {
    Stopwatch watch;
    body();
    best = std::min(best, watch.seconds());
  }
  return best;
}

void time_triad(int64_t count) {
  Tensor a = Tensor::zeros({count}, DType::f32), b = Tensor::full({count}, DType::f32, 1);
  float *x = a.data<float>(), *y = b.data<float>();
  const double seconds = best_seconds([&] {
    parallel_for(count, 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) x[i] = x[i] + 0.5f * y[i];
    });
  });
  report(format("x = x + y/2, {} elements", count), 12.0 * static_cast<double>(count), seconds);
}

void time_update(const std::string& section, const Shape& shape, int stacked, int tensors) {
  const ParameterList parameters = {{"w", Var::leaf(formula_weight(shape, 0)), stacked}};
  const auto optimizer = optimizer_of(section, parameters);
  parameters[0].value.set_grad(formula_gradient(shape, 0, 0));
  int64_t step = 0;
  const double seconds = best_seconds([&] { optimizer->update(parameters, 1e-6, step++); });
  report(format("{} {}", section, shape.text()), 4.0 * tensors * static_cast<double>(shape.numel()),
         seconds);
}

}  // namespace

TEST_CASE("optimizer bandwidth", "[.bench][optim]") {
  const std::pair<Shape, int> weights[] = {{{8, 512, 2048}, 1}, {{32128, 512}, 0}, {{512, 512}, 0}};
  time_triad(8 * 512 * 2048);
  time_triad(32128 * 512);
  for (const auto& [shape, stacked] : weights) {
    time_update("{kind: adafactor}", shape, stacked, 3);
    time_update("{kind: adafactor, min_dim_to_factor: 100000, factor_scope: tensor}", shape,
                stacked, 5);
    time_update("{kind: adamw}", shape, stacked, 7);
    const Tensor gradient = formula_gradient(shape, 0, 0);
    double sum = 0;
    report("sum of squares " + shape.text(), 4.0 * static_cast<double>(shape.numel()),
           best_seconds([&] { sum += sum_of_squares(gradient); }));
    REQUIRE(sum > 0);
  }
}

}  // namespace stmoe::test
