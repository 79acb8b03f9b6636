// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/embedding.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/random.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

// Few frequent ids and many rare ones, as in text.
Tensor draw_ids(const Shape& shape, int64_t vocabulary) {
  const Tensor ids = Tensor::persistent(shape, DType::i32);
  auto values = ids.span<int32_t>();
  for (size_t n = 0; n < values.size(); ++n) {
    const double u = random_uniform(RandomKey{3}, n);
    values[n] = static_cast<int32_t>(std::floor(u * u * u * static_cast<double>(vocabulary)));
  }
  return ids;
}

test::OpCase embedding_case(const Shape& ids_shape, int64_t vocabulary, int64_t width,
                            bool is_weight) {
  const Tensor ids = draw_ids(ids_shape, vocabulary);
  test::OpCase op_case;
  op_case.name = format("embedding {} of [{}, {}]{}", ids_shape.text(), vocabulary, width,
                        is_weight ? " f32 table" : "");
  op_case.inputs = {{.shape = {vocabulary, width}, .is_weight = is_weight}};
  op_case.call = [=](const test::OpArguments& x) { return embedding(x[0], ids, x.dtype); };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> y;
    for (int32_t id : ids.span<int32_t>())
      for (int64_t d = 0; d < width; ++d) y.push_back(x[0][static_cast<size_t>(id * width + d)]);
    return test::OpValues{y};
  };
  const auto rows = static_cast<double>(ids.numel() * width);
  const auto table = static_cast<double>(vocabulary * width);
  op_case.forward_bytes = [=](DType dtype) {
    return rows * static_cast<double>((is_weight ? 4 : size_of(dtype)) + size_of(dtype));
  };
  op_case.backward_bytes = [=](DType dtype) {
    return rows * static_cast<double>(size_of(dtype)) +
           table * static_cast<double>(is_weight ? 4 : size_of(dtype));
  };
  return op_case;
}

}  // namespace

TEST_CASE("embedding gathers rows and sums their gradients", "[ops][embedding]") {
  test::check_ops({embedding_case({3, 5}, 11, 7, false), embedding_case({3, 5}, 11, 7, true),
                   embedding_case({1}, 1, 1, true), embedding_case({0}, 4, 3, true),
                   embedding_case({2, 0, 3}, 4, 3, true)});
}

TEST_CASE("embedding has the same bits with any number of threads", "[ops][embedding]") {
  // Each frequent id is summed from hundreds of bf16 rows in f32, in a different order than f64's
  // rounding sees.
  auto op_case = embedding_case({8, 256}, 300, 40, true);
  op_case.gradient_tolerance.f32 = {1e-4, 1e-5};
  test::check_op(op_case);
}

TEST_CASE("an id that occurs many times gets the sum in the order of positions",
          "[ops][embedding]") {
  const Tensor ids = Tensor::from<int32_t>({4}, {2, 0, 2, 2});
  const Var table = Var::leaf(Tensor::zeros({3, 1}, DType::f32));
  const Var y = embedding(table, ids, DType::f32);
  // 1 + 2^-24 is 1 in f32, so the order shows: (2^-24 + 2^-24) + 1 would be more than 1.
  backward({y}, {Tensor::from<float>({4, 1}, {1.0f, 5.0f, 0x1p-24f, 0x1p-24f})});
  test::require_close(table.grad(), {5, 0, 1}, test::Tolerance::exact());
}

TEST_CASE("an id outside the table is refused with its position", "[ops][embedding]") {
  const Var table(Tensor::zeros({4, 2}, DType::f32));
  CHECK_THROWS_WITH(embedding(table, Tensor::from<int32_t>({3}, {1, 4, 0}), DType::f32),
                    Catch::Contains("id 4 at position 1, the table has 4 rows"));
  CHECK_THROWS_AS(embedding(table, Tensor::from<int32_t>({1}, {-1}), DType::f32), BugError);
  CHECK_THROWS_AS(embedding(table, Tensor::from<int64_t>({1}, {0}), DType::f32), BugError);
}

TEST_CASE("embedding speed", "[ops][embedding][.bench]") {
  test::time_op(embedding_case({8, 512}, 32128, 512, true));
}

}  // namespace stmoe
