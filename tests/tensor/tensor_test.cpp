// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/tensor.h"

#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include "lib/tensor/add_in_place.h"

namespace stmoe {
namespace {

Tensor counting(const Shape& shape) {
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0);
  return Tensor::from(shape, values);
}

std::vector<double> values(const Tensor& tensor) {
  const Tensor plain = tensor.to(DType::f64).contiguous();
  return {plain.span<double>().begin(), plain.span<double>().end()};
}

using Values = std::vector<double>;

}  // namespace

TEST_CASE("tensors are made with values", "[tensor]") {
  CHECK(values(Tensor::zeros({2, 2}, DType::bf16)) == Values{0, 0, 0, 0});
  CHECK(values(Tensor::full({3}, DType::i32, 7)) == Values{7, 7, 7});
  CHECK(values(Tensor::persistent({2}, DType::u8)) == Values{0, 0});
  CHECK(Tensor::full({}, DType::f32, 1.5).item() == 1.5);
  CHECK(Tensor::empty({2, 3}, DType::f32).bytes() == 24);
  CHECK(reinterpret_cast<uintptr_t>(Tensor::empty({1}, DType::u8).raw()) % 64 == 0);
  CHECK_THROWS_AS(Tensor::from<float>({2, 2}, {1, 2, 3}), BugError);
  CHECK_THROWS_WITH(Tensor::empty({2, -3}, DType::f32), Catch::Contains("[2, -3]"));
  CHECK(!Tensor().defined());
}

TEST_CASE("data is read as its own type only", "[tensor]") {
  const Tensor x = Tensor::zeros({2}, DType::f32);
  CHECK_THROWS_WITH(x.data<double>(), Catch::Contains("f32 data read as f64"));
  CHECK_THROWS_AS(x.item(), BugError);
  CHECK_THROWS_AS(counting({2, 3}).transpose(0, 1).span<double>(), BugError);
}

TEST_CASE("views share the memory they came from", "[tensor]") {
  const Tensor x = counting({2, 3});
  CHECK(!x.is_shared());
  const Tensor turned = x.transpose(0, 1), column = x.slice(1, 1, 2), row = x.slice(0, 1, 2);
  CHECK(x.is_shared());
  x.data<double>()[4] = 40;
  CHECK(values(turned) == Values{0, 3, 1, 40, 2, 5});
  CHECK(values(column) == Values{1, 40});
  CHECK(values(row) == Values{3, 40, 5});
  CHECK(values(turned.slice(0, 1, 3).slice(1, 1, 2)) == Values{40, 5});
  CHECK(values(x.transpose(-1, -2)) == values(turned));
  CHECK_THROWS_AS(x.slice(1, 2, 4), BugError);
  CHECK_THROWS_AS(x.slice(1, 2, 1), BugError);
}

TEST_CASE("contiguity follows the strides of dimensions that matter", "[tensor]") {
  const Tensor x = counting({2, 3});
  CHECK(x.is_contiguous());
  CHECK(x.slice(0, 1, 2).is_contiguous());
  CHECK(!x.slice(1, 0, 2).is_contiguous());
  CHECK(!x.transpose(0, 1).is_contiguous());
  CHECK(counting({1, 3}).transpose(0, 1).is_contiguous());
  CHECK(x.slice(1, 1, 1).is_contiguous());  // nothing is always in order
  CHECK(x.contiguous().raw() == x.raw());
  CHECK(x.transpose(0, 1).contiguous().raw() != x.raw());
}

TEST_CASE("reshape keeps the order of the elements", "[tensor]") {
  const Tensor x = counting({2, 6});
  CHECK(x.reshape({3, -1}).shape() == Shape{3, 4});
  CHECK(x.reshape({12}).raw() == x.raw());
  CHECK(x.slice(0, 1, 2).reshape({2, 3}).dim(0) == 2);
  CHECK(Tensor::zeros({0, 4}, DType::f32).reshape({-1, 2}).shape() == Shape{0, 2});
  CHECK_THROWS_WITH(x.reshape({5, -1}), Catch::Contains("reshape of [2, 6] to [5, -1]"));
  CHECK_THROWS_AS(x.reshape({-1, -1}), BugError);
  CHECK_THROWS_AS(Tensor::zeros({0}, DType::f32).reshape({-1, -1}), BugError);
  CHECK_THROWS_AS(x.transpose(0, 1).reshape({12}), BugError);
}

TEST_CASE("copies convert between every pair of types", "[tensor]") {
  const DType all[] = {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8};
  for (DType from : all)
    for (DType to : all) {
      INFO(name_of(from) << " to " << name_of(to));
      const Tensor source = Tensor::from<double>({2, 2}, {0, 1, 100, 200}).to(from);
      CHECK(source.dtype() == from);
      CHECK(values(source.to(to)) == Values{0, 1, 100, 200});
    }
  const Tensor x = counting({2});
  CHECK(x.to(DType::f64).raw() == x.raw());
  CHECK(values(Tensor::from<float>({1}, {1.00390625f}).to(DType::bf16)) == Values{1});
}

TEST_CASE("copies follow the strides on both sides", "[tensor]") {
  const Tensor x = counting({2, 3, 4});
  const Tensor into = Tensor::full({4, 3, 3}, DType::f32, -1);
  into.slice(2, 1, 3).copy_from(x.transpose(0, 2));
  CHECK(values(into.slice(0, 1, 2)) == Values{-1, 1, 13, -1, 5, 17, -1, 9, 21});
  CHECK_THROWS_WITH(into.copy_from(x), Catch::Contains("copy of [2, 3, 4] into [4, 3, 3]"));
  const Tensor empty = Tensor::zeros({0, 3}, DType::f32);
  CHECK(empty.transpose(0, 1).clone().shape() == Shape{3, 0});
}

TEST_CASE("copies of many elements run on all threads", "[tensor]") {
  const Tensor x = counting({300, 400});
  const Tensor turned = x.transpose(0, 1).contiguous();
  for (int64_t i = 0; i < 300; ++i)
    for (int64_t j = 0; j < 400; ++j)
      REQUIRE(turned.data<double>()[j * 300 + i] == static_cast<double>(i * 400 + j));
  CHECK(values(x.clone()) == values(x));
  CHECK(values(Tensor::full({120000}, DType::bf16, 3)) == Values(120000, 3));
}

TEST_CASE("add_in_place adds equal shapes of one type", "[tensor]") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const Tensor x = counting({2, 2}).to(dtype).clone();
    add_in_place(x, Tensor::full({2, 2}, dtype, 0.5));
    CHECK(values(x) == Values{0.5, 1.5, 2.5, 3.5});
    CHECK_THROWS_AS(add_in_place(x, Tensor::zeros({4}, dtype)), BugError);
    CHECK_THROWS_AS(add_in_place(x, counting({2, 2}).to(dtype).transpose(0, 1)), BugError);
  }
  CHECK_THROWS_WITH(add_in_place(counting({2}), Tensor::zeros({2}, DType::f32)),
                    Catch::Contains("f64 [2] and f32 [2]"));
}

}  // namespace stmoe
