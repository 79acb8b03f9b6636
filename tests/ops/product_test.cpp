// SPDX-License-Identifier: Apache-2.0
// product() against the naive sum in f64, for every element type, layout and awkward size; same
// bits with any number of threads and run after run.
#include "lib/ops/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "lib/base/threads.h"
#include "lib/ops/scratch.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype, std::string_view name) {
  Tensor values = Tensor::empty(shape, DType::f64);
  const RandomKey key = RandomKey{5}.fold(name);
  for (int64_t i = 0; i < values.numel(); ++i)
    values.data<double>()[i] = random_normal(key, static_cast<uint64_t>(i));
  return values.to(dtype);
}

double unit_of(DType dtype) {
  return dtype == DType::f64 ? 0x1p-53 : dtype == DType::f32 ? 0x1p-24 : 0x1p-8;
}

struct Case {
  int64_t batch, m, n, k;
  bool is_a_transposed = false, is_b_transposed = false, accumulate = false;
  int64_t padding = 0;  // columns after each row that belong to somebody else
};

// [batch, rows, cols] (with the last two swapped in memory when transposed), rows `padding` apart.
Tensor operand(const Case& c, int64_t rows, int64_t cols, bool is_transposed, DType dtype,
               std::string_view name) {
  const int64_t stored_rows = is_transposed ? cols : rows,
                stored_cols = is_transposed ? rows : cols;
  Tensor full = random_tensor({c.batch, stored_rows, stored_cols + c.padding}, dtype, name);
  Tensor view = full.slice(2, 0, stored_cols);
  return is_transposed ? view.transpose(1, 2) : view;
}

// |c - exact| <= rounding of the result + k roundings of the sum, in units of sum |a||b|.
void require_product(const Tensor& c, const Tensor& before, const Tensor& a, const Tensor& b) {
  const Tensor c64 = c.to(DType::f64).contiguous(), a64 = a.to(DType::f64).contiguous(),
               b64 = b.to(DType::f64).contiguous(), before64 = before.to(DType::f64).contiguous();
  const int64_t m = c.dim(1), n = c.dim(2), k = a.dim(2);
  const double sum_unit = a.dtype() == DType::f64 ? 0x1p-53 : 0x1p-24;
  double worst = 0;
  for (int64_t e = 0; e < c.dim(0); ++e)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const int64_t at = (e * m + i) * n + j;
        double exact = before64.data<double>()[at], size = std::fabs(exact);
        for (int64_t p = 0; p < k; ++p) {
          const double term =
              a64.data<double>()[(e * m + i) * k + p] * b64.data<double>()[(e * k + p) * n + j];
          exact += term;
          size += std::fabs(term);
        }
        const double allowed = 2 * unit_of(c.dtype()) * std::fabs(exact) +
                               sum_unit * size * (2 + std::sqrt(static_cast<double>(k))) + 1e-300;
        worst = std::max(worst, std::fabs(c64.data<double>()[at] - exact) / allowed);
      }
  REQUIRE(worst <= 1.0);
}

using ProductFunction = void (*)(const MatrixView&, const MatrixView&, const MatrixView&, bool);

void check_case(const Case& c, DType in, DType out, ProductFunction multiply) {
  CAPTURE(c.batch, c.m, c.n, c.k, c.is_a_transposed, c.is_b_transposed, c.accumulate, c.padding,
          name_of(in), name_of(out));
  const Tensor a = operand(c, c.m, c.k, c.is_a_transposed, in, "a");
  const Tensor b = operand(c, c.k, c.n, c.is_b_transposed, in, "b");
  const Tensor whole = random_tensor({c.batch, c.m, c.n + c.padding}, out, "c");
  const Tensor copy = whole.clone(), result = whole.slice(2, 0, c.n);
  const Tensor before = c.accumulate ? result.clone() : Tensor::zeros(result.shape(), out);
  multiply(matrix_view(result), matrix_view(a), matrix_view(b), c.accumulate);
  require_product(result, before, a, b);
  const Tensor outside = whole.slice(2, c.n, c.n + c.padding).contiguous(),
               untouched = copy.slice(2, c.n, c.n + c.padding).contiguous();
  REQUIRE(std::memcmp(outside.raw(), untouched.raw(), outside.bytes()) == 0);
}

const std::pair<DType, DType> kTypes[] = {{DType::f64, DType::f64},
                                          {DType::f32, DType::f32},
                                          {DType::bf16, DType::bf16},
                                          {DType::bf16, DType::f32}};

void for_each_case(ProductFunction multiply, int64_t most_batch) {
  const int64_t sizes[][3] = {{1, 1, 1},   {1, 65, 17},  {65, 1, 3},     {3, 17, 1},    {17, 3, 65},
                              {7, 130, 2}, {64, 64, 64}, {33, 100, 129}, {128, 16, 300}};
  for (auto [in, out] : kTypes)
    for (const auto& size : sizes)
      for (int variant = 0; variant < 16; ++variant) {
        Case c{variant % 2 ? most_batch : 1, size[0], size[1], size[2]};
        c.is_a_transposed = variant & 2;
        c.is_b_transposed = variant & 4;
        c.accumulate = (variant & 8) && out != DType::bf16;
        c.padding = variant & 8 ? 5 : 0;
        check_case(c, in, out, multiply);
      }
}

Tensor multiplied(const Tensor& a, const Tensor& b, DType out) {
  Tensor c = Tensor::empty({a.dim(0), a.dim(1), b.dim(2)}, out);
  product(matrix_view(c), matrix_view(a), matrix_view(b));
  return c;
}

bool same_bits(const Tensor& x, const Tensor& y) {
  return x.bytes() == y.bytes() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

}  // namespace

TEST_CASE("products of every type, layout and awkward size match the naive sum", "[ops][product]") {
  for_each_case(product, 3);
}

TEST_CASE("products that are cut into tiles and into several sums match the naive sum",
          "[ops][product]") {
  for (auto [in, out] : kTypes) {
    check_case({1, 300, 290, 700}, in, out, product);
    check_case({1, 24, 40, 9001}, in, out, product);
    check_case({2, 24, 40, 9001, true, false, out != DType::bf16}, in, out, product);
    check_case({1, 1100, 60, 512, true, true}, in, out, product);
    check_case({2, 70, 257, 515, true, true, out != DType::bf16, 3}, in, out, product);
  }
}

TEST_CASE("an element does not depend on the other rows and columns", "[ops][product]") {
  for (auto [in, out] : kTypes) {
    const Tensor a = random_tensor({1, 701, 1100}, in, "a"),
                 b = random_tensor({1, 1100, 321}, in, "b");
    const Tensor whole = multiplied(a, b, out);
    for (auto [row, column] : {std::pair{0, 0}, {1, 5}, {690, 300}}) {
      const Tensor part =
          multiplied(a.slice(1, row, row + 11), b.slice(2, column, column + 21), out);
      REQUIRE(same_bits(part,
                        whole.slice(1, row, row + 11).slice(2, column, column + 21).contiguous()));
    }
  }
}

TEST_CASE("a list of products of different sizes is each of them", "[ops][product]") {
  for (auto [in, out] : kTypes) {
    std::vector<Tensor> as, bs, cs;
    std::vector<Product> list;
    for (int64_t rows : {300, 0, 7, 1, 90}) {
      as.push_back(random_tensor({1, rows, 130}, in, "a"));
      bs.push_back(random_tensor({1, 130, 70}, in, format("b{}", rows)));
      cs.push_back(Tensor::empty({1, rows, 70}, out));
    }
    for (size_t i = 0; i < as.size(); ++i)
      list.push_back({matrix_view(cs[i]), matrix_view(as[i]), matrix_view(bs[i])});
    products(list);
    for (size_t i = 0; i < as.size(); ++i) REQUIRE(same_bits(cs[i], multiplied(as[i], bs[i], out)));
  }
  products({});
}

TEST_CASE("working memory of nested scopes does not overlap and is used again", "[ops][product]") {
  Scratch outer;
  float* first = outer.take<float>(100);
  std::fill_n(first, 100, 1.0f);
  float* inner_first = nullptr;
  for (int round = 0; round < 2; ++round) {
    Scratch inner;
    float* small = inner.take<float>(7);
    if (round == 0) inner_first = small;
    REQUIRE(small == inner_first);
    float* large = inner.take<float>(1 << 21);  // more than a block
    std::fill_n(small, 7, 2.0f);
    std::fill_n(large, 1 << 21, 3.0f);
    REQUIRE(std::count(small, small + 7, 2.0f) == 7);
  }
  REQUIRE(std::count(first, first + 100, 1.0f) == 100);
  REQUIRE(reinterpret_cast<uintptr_t>(outer.take<char>(1)) % 64 == 0);
}

TEST_CASE("empty matrices multiply to nothing or to zero", "[ops][product]") {
  for (auto [in, out] : kTypes) {
    check_case({1, 0, 5, 7}, in, out, product);
    check_case({1, 5, 0, 7}, in, out, product);
    check_case({2, 5, 3, 0}, in, out, product);
    check_case({0, 5, 3, 2}, in, out, product);
  }
  check_case({2, 5, 3, 0, false, false, true}, DType::f32, DType::f32, product);
}

TEST_CASE("products have the same bits with any number of threads", "[ops][product]") {
  const int before = num_threads();
  for (auto [in, out] : kTypes) {
    const Tensor a = random_tensor({2, 700, 513}, in, "a"),
                 b = random_tensor({2, 513, 600}, in, "b");
    const Tensor at = random_tensor({2, 513, 700}, in, "at").transpose(1, 2);
    set_num_threads(1);
    const Tensor one = multiplied(a, b, out), one_t = multiplied(at, b, out);
    for (int threads : {1, 2, 3}) {
      set_num_threads(threads);
      REQUIRE(same_bits(multiplied(a, b, out), one));
      REQUIRE(same_bits(multiplied(at, b, out), one_t));
    }
  }
  set_num_threads(before);
}

TEST_CASE("a product of matrices that do not fit is a bug that names the sizes", "[ops][product]") {
  const Tensor a = Tensor::zeros({2, 3}, DType::f32), b = Tensor::zeros({4, 5}, DType::f32),
               c = Tensor::zeros({2, 5}, DType::f32);
  REQUIRE_THROWS_AS(product(matrix_view(c), matrix_view(a), matrix_view(b)), BugError);
  const Tensor b16 = Tensor::zeros({3, 5}, DType::bf16);
  REQUIRE_THROWS_AS(product(matrix_view(c), matrix_view(a), matrix_view(b16)), BugError);
}

}  // namespace stmoe
