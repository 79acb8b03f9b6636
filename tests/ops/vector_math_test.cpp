// SPDX-License-Identifier: Apache-2.0
// vector_math.h against the library functions in f64, in units in the last place of f32.
#include "lib/ops/cpu/vector_math.h"

#include <cmath>

#include <catch2/catch.hpp>

namespace stmoe {
namespace {

// |actual - exact| in units in the last place of f32 at `exact`.
double ulps(float actual, double exact) {
  const float near = std::fabs(static_cast<float>(exact));
  const double unit = static_cast<double>(std::nextafter(near, INFINITY)) - near;
  return std::fabs(actual - exact) / unit;
}

}  // namespace

TEST_CASE("vector_exp is within 2 ulp of the library over the normal range", "[ops][vector_math]") {
  double worst = 0;
  for (double x = -87.336; x < 88.722; x += 3.1e-4) {
    const float in = static_cast<float>(x);
    worst = std::max(worst, ulps(vector_exp(in), std::exp(static_cast<double>(in))));
  }
  for (double x = -1; x < 1; x += 1.7e-5) {
    const float in = static_cast<float>(x);
    worst = std::max(worst, ulps(vector_exp(in), std::exp(static_cast<double>(in))));
  }
  INFO("worst " << worst);
  REQUIRE(worst < 2.0);
}

TEST_CASE("vector_exp of a vector has the bits of the scalar form", "[ops][vector_math]") {
  float x[kLanes<float>], y[kLanes<float>];
  for (float first = -100; first < 100; first += 3.7f) {
    for (int i = 0; i < kLanes<float>; ++i) x[i] = first + 0.31f * static_cast<float>(i);
    store(y, vector_exp(load(x)));
    for (int i = 0; i < kLanes<float>; ++i) REQUIRE(y[i] == vector_exp(x[i]));
  }
  x[1] = NAN;
  store(y, vector_exp(load(x)));
  REQUIRE(std::isnan(y[1]));
}

TEST_CASE("sums and maxima over a vector", "[ops][vector_math]") {
  float x[kLanes<float>];
  float sum = 0;
  for (int i = 0; i < kLanes<float>; ++i) sum += x[i] = static_cast<float>((i * 7) % 5 - i);
  x[2] += 100;
  REQUIRE(sum_of<float>(load(x)) == sum + 100);
  REQUIRE(max_of<float>(load(x)) == x[2]);
}

TEST_CASE("vectors are transposed and summed lane by lane", "[ops][vector_math]") {
  constexpr int kSize = kLanes<float>;
  Vector<float> vectors[kSize], again[kSize];
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) again[i][j] = vectors[i][j] = static_cast<float>(100 * i + j);
  transpose<float>(vectors);
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) REQUIRE(vectors[i][j] == static_cast<float>(100 * j + i));
  const Vector<float> sums = sums_of<float>(again);
  for (int i = 0; i < kSize; ++i)
    REQUIRE(sums[i] == static_cast<float>(100 * i * kSize + kSize * (kSize - 1) / 2));
  const bf16 values[] = {bf16(1.5f), bf16(-2.0f), bf16(3e38f), bf16(0.0f), bf16(7.0f), bf16(8.0f),
                         bf16(9.0f), bf16(1.0f),  bf16(1.0f),  bf16(1.0f), bf16(1.0f), bf16(1.0f),
                         bf16(1.0f), bf16(1.0f),  bf16(1.0f),  bf16(1.0f)};
  const Vector<float> wide = load_wide(values);
  for (int i = 0; i < kSize; ++i) REQUIRE(wide[i] == static_cast<float>(values[i]));
}

TEST_CASE("vector_exp keeps infinities, NaN and exact points", "[ops][vector_math]") {
  REQUIRE(vector_exp(0.0f) == 1.0f);
  REQUIRE(vector_exp(-0.0f) == 1.0f);
  REQUIRE(vector_exp(-INFINITY) == 0.0f);
  REQUIRE(vector_exp(-1e30f) == 0.0f);
  REQUIRE(vector_exp(-88.0f) == 0.0f);
  REQUIRE(vector_exp(INFINITY) == INFINITY);
  REQUIRE(vector_exp(89.0f) == INFINITY);
  REQUIRE(std::isfinite(vector_exp(88.722f)));
  REQUIRE(std::isnan(vector_exp(NAN)));
}

TEST_CASE("vector_tanh is within 2 ulp of the library", "[ops][vector_math]") {
  double worst = 0;
  for (double x = -12; x < 12; x += 1.3e-5) {
    const float in = static_cast<float>(x);
    worst = std::max(worst, ulps(vector_tanh(in), std::tanh(static_cast<double>(in))));
  }
  INFO("worst " << worst);
  REQUIRE(worst < 2.0);
  REQUIRE(vector_tanh(0.0f) == 0.0f);
  REQUIRE(vector_tanh(1e-30f) == 1e-30f);
  REQUIRE(vector_tanh(-100.0f) == -1.0f);
  REQUIRE(vector_tanh(INFINITY) == 1.0f);
  REQUIRE(std::isnan(vector_tanh(NAN)));
}

}  // namespace stmoe
