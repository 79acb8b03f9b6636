// SPDX-License-Identifier: Apache-2.0
#include "lib/nn/parameters.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/base/clock.h"
#include "lib/base/threads.h"

namespace stmoe {
namespace {

struct Moments {
  double mean = 0, deviation = 0, largest = 0;
};

Moments moments(const Tensor& values) {
  Moments result;
  double sum = 0, squares = 0;
  for (double value : values.span<double>()) {
    sum += value;
    squares += value * value;
    result.largest = std::max(result.largest, std::abs(value));
  }
  const double count = static_cast<double>(values.numel());
  result.mean = sum / count;
  result.deviation = std::sqrt(squares / count - result.mean * result.mean);
  return result;
}

// The standard normal distribution function.
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

}  // namespace

TEST_CASE("normal weights follow the inverse distribution function of their random word",
          "[nn][initializer]") {
  const RandomKey key{17};
  Tensor values = Tensor::empty({10007}, DType::f64);
  initialize(values, Initializer::normal(1.0), key);
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double uniform = (random_bits(key, static_cast<uint64_t>(i)) + 0.5) * 0x1p-32;
    const double x = values.span<double>()[static_cast<size_t>(i)];
    REQUIRE(std::abs(normal_cdf(x) - uniform) < 1e-14);
  }
}

TEST_CASE("truncated normal weights end at two deviations and have the uncorrected deviation",
          "[nn][initializer]") {
  Tensor values = Tensor::empty({1 << 20}, DType::f64);
  initialize(values, Initializer::truncated_normal(0.5), RandomKey{3});
  const Moments found = moments(values);
  // The deviation of a standard normal cut at +-2 is 0.87962566.
  CHECK(std::abs(found.mean) < 2e-3);
  CHECK(std::abs(found.deviation - 0.5 * 0.87962566) < 1e-3);
  CHECK(found.largest <= 1.0);
  CHECK(found.largest > 0.999);
  for (uint64_t i : {0u, 1u, 77u, 4097u}) {
    const double low = normal_cdf(-2.0);
    const double uniform = (random_bits(RandomKey{3}, i) + 0.5) * 0x1p-32;
    const double x = values.span<double>()[i] / 0.5;
    CHECK(std::abs(normal_cdf(x) - (low + (1 - 2 * low) * uniform)) < 1e-14);
  }
}

TEST_CASE("normal weights have the wanted mean and deviation, also in the tails",
          "[nn][initializer]") {
  Tensor values = Tensor::empty({1 << 20}, DType::f64);
  initialize(values, Initializer::normal(2.0), RandomKey{4});
  const Moments found = moments(values);
  CHECK(std::abs(found.mean) < 8e-3);
  CHECK(std::abs(found.deviation - 2.0) < 6e-3);
  int64_t beyond_three = 0;
  for (double value : values.span<double>()) beyond_three += std::abs(value) > 6.0;
  // Expected 2831 of 2^20; the deviation of the count is 53.
  CHECK(std::abs(static_cast<double>(beyond_three) - 2831) < 270);
}

TEST_CASE("a weight's values depend on its name only, not on order, threads or neighbours",
          "[nn][parameters]") {
  ParameterStore first(RandomKey{5}), second(RandomKey{5});
  const Initializer normal = Initializer::normal(1.0);
  ParameterScope a(first), b(second);
  Var x = (a / "encoder").create("kernel", {300, 701}, normal);
  Var y = (a / "decoder").create("kernel", {300, 701}, normal);
  const int threads = num_threads();
  set_num_threads(1);
  Var y_again = (b / "decoder").create("kernel", {300, 701}, normal);
  Var x_again = (b / "encoder").create("kernel", {300, 701}, normal);
  set_num_threads(threads);
  auto equal = [](const Var& p, const Var& q) {
    return std::ranges::equal(p.value().span<float>(), q.value().span<float>());
  };
  CHECK(equal(x, x_again));
  CHECK(equal(y, y_again));
  CHECK_FALSE(equal(x, y));
  CHECK(first.parameters()[0].name == "encoder/kernel");
  CHECK(second.parameters()[0].name == "decoder/kernel");
}

TEST_CASE("f32 weights are the f64 weights rounded", "[nn][initializer]") {
  Tensor wide = Tensor::empty({1000}, DType::f64), narrow = Tensor::empty({1000}, DType::f32);
  initialize(wide, Initializer::normal(0.02), RandomKey{6});
  initialize(narrow, Initializer::normal(0.02), RandomKey{6});
  for (size_t i = 0; i < 1000; ++i)
    REQUIRE(narrow.span<float>()[i] == static_cast<float>(wide.span<double>()[i]));
}

TEST_CASE("a store of shapes takes no memory and knows every weight", "[nn][parameters]") {
  ParameterStore store(RandomKey{}, DType::f32, ParameterStore::Mode::shapes_only);
  const size_t before = heap_bytes_in_use();
  ParameterScope scope = ParameterScope(store) / "encoder" / "block_1";
  Var kernel = (scope / "moe" / "experts" / "wi")
                   .create("kernel", {2048, 4096, 10240}, Initializer::normal(1.0), 1);
  CHECK_FALSE(kernel.defined());
  CHECK(heap_bytes_in_use() == before);
  REQUIRE(store.shapes().size() == 1);
  CHECK(store.shapes()[0].name == "encoder/block_1/moe/experts/wi/kernel");
  CHECK(store.shapes()[0].shape.numel() == int64_t{2048} * 4096 * 10240);
  CHECK(store.shapes()[0].stacked_dims == 1);
  CHECK(store.parameters().empty());
}

TEST_CASE("a zeroed store holds zeros, a name is given once", "[nn][parameters]") {
  ParameterStore store(RandomKey{}, DType::f32, ParameterStore::Mode::zeroed);
  ParameterScope scope(store);
  Var scale = scope.create("scale", {7}, Initializer::constant(1.0));
  for (float value : scale.value().span<float>()) CHECK(value == 0.0f);
  CHECK_THROWS_AS(scope.create("scale", {7}, Initializer::constant(1.0)), BugError);
}

TEST_CASE("time of making weights", "[.bench][nn]") {
  for (const Initializer& initializer :
       {Initializer::normal(1.0), Initializer::truncated_normal(1.0)}) {
    Tensor values = Tensor::persistent({1 << 26}, DType::f32);
    Stopwatch watch;
    initialize(values, initializer, RandomKey{1});
    WARN(format("{:.2f} ns an element on {} threads", watch.seconds() * 1e9 / (1 << 26),
                num_threads()));
  }
}

}  // namespace stmoe
