// SPDX-License-Identifier: Apache-2.0
#include "tests/support/close.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <catch2/catch.hpp>

namespace stmoe::test {
namespace {

std::string index_text(int64_t flat, const Shape& shape) {
  Shape index = shape;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    index[d] = flat % shape[d];
    flat /= shape[d];
  }
  return index.text();
}

// The share of the tolerance that one element uses: above 1 it is not close.
double used(double actual, double expected, Tolerance tolerance) {
  if (std::isnan(expected)) return std::isnan(actual) ? 0 : INFINITY;
  if (actual == expected) return 0;
  const double error = std::abs(actual - expected);
  const double bound = tolerance.absolute + tolerance.relative * std::abs(expected);
  return std::isfinite(error) && bound > 0 ? error / bound : INFINITY;
}

void compare(const std::vector<double>& actual, const std::vector<double>& expected,
             const Shape& shape, Tolerance tolerance) {
  size_t worst = 0, failures = 0;
  double most = -1;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double share = used(actual[i], expected[i], tolerance);
    failures += share > 1;
    if (share > most) {
      most = share;
      worst = i;
    }
  }
  if (failures > 0)
    FAIL(format(
        "{} of {} elements of {} are not close; worst at {}: {:.9g}, expected {:.9g} "
        "({:.4g} of the tolerance {:g} + {:g} relative)",
        failures, expected.size(), shape.text(), index_text(static_cast<int64_t>(worst), shape),
        actual[worst], expected[worst], most, tolerance.absolute, tolerance.relative));
  SUCCEED();
}

}  // namespace

Tolerance Tolerance::of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return {1e-10, 1e-10};
    case DType::f32:
      return {1e-5, 1e-5};
    case DType::bf16:
      return {1e-2, 1e-2};
    default:
      return exact();
  }
}

std::vector<double> values_of(const Tensor& tensor) {
  const Tensor plain = tensor.to(DType::f64).contiguous();
  const auto values = plain.span<double>();
  return {values.begin(), values.end()};
}

void require_close(const Tensor& actual, const Tensor& expected, Tolerance tolerance) {
  if (!(actual.shape() == expected.shape()))
    FAIL(format("shape {}, expected {}", actual.shape().text(), expected.shape().text()));
  compare(values_of(actual), values_of(expected), actual.shape(), tolerance);
}

void require_close(const Tensor& actual, const std::vector<double>& expected, Tolerance tolerance) {
  if (actual.numel() != static_cast<int64_t>(expected.size()))
    FAIL(format("{} elements in {}, expected {}", actual.numel(), actual.shape().text(),
                expected.size()));
  compare(values_of(actual), expected, actual.shape(), tolerance);
}

void require_close(double actual, double expected, Tolerance tolerance) {
  compare({actual}, {expected}, Shape{1}, tolerance);
}

void require_same_bits(const Tensor& actual, const Tensor& expected) {
  if (!(actual.shape() == expected.shape()) || actual.dtype() != expected.dtype())
    FAIL(format("{} {}, expected {} {}", name_of(actual.dtype()), actual.shape().text(),
                name_of(expected.dtype()), expected.shape().text()));
  const Tensor a = actual.contiguous(), b = expected.contiguous();
  if (a.bytes() > 0 && std::memcmp(a.raw(), b.raw(), a.bytes()) != 0) {
    compare(values_of(a), values_of(b), a.shape(), Tolerance::exact());
    FAIL("the values agree, their bits do not (a NaN or a signed zero)");
  }
  SUCCEED();
}

}  // namespace stmoe::test
