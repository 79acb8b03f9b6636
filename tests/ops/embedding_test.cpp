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
                            bool is_weight, const Dropout& dropout = {}) {
  const Tensor ids = draw_ids(ids_shape, vocabulary);
  test::OpCase op_case;
  op_case.name = format("embedding {} of [{}, {}]{} rate {} over {}", ids_shape.text(), vocabulary,
                        width, is_weight ? " f32 table" : "", dropout.rate, dropout.broadcast_dim);
  op_case.inputs = {{.shape = {vocabulary, width}, .is_weight = is_weight}};
  op_case.call = [=](const test::OpArguments& x) {
    return embedding(x[0], x.on_device(ids), x.dtype, dropout);
  };
  op_case.reference = [=](const test::OpValues& x) {
    std::vector<double> y;
    for (int64_t n = 0; n < ids.numel(); ++n)
      for (int64_t d = 0; d < width; ++d) {
        const int64_t row = dropout.broadcast_dim == 1 ? n / ids_shape[1] : n;
        const auto index = static_cast<uint64_t>(
            dropout.first_row * (dropout.broadcast_dim == 1 ? 1 : ids.numel() / ids_shape[0]) *
                width +
            row * width + d);
        const bool is_kept = random_uniform(dropout.key, index) >= dropout.rate;
        const int32_t id = ids.data<int32_t>()[n];
        y.push_back(is_kept ? x[0][static_cast<size_t>(id * width + d)] / (1 - dropout.rate) : 0);
      }
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

TEST_CASE("embedding drops out what it looks up", "[ops][embedding][dropout]") {
  const RandomKey key = RandomKey{6}.fold("input");
  for (bool is_weight : {false, true})
    test::check_ops({embedding_case({3, 5}, 11, 7, is_weight, {0.3, key, -1, 2}),
                     embedding_case({3, 5}, 11, 7, is_weight, {0.5, key, 1, 2}),
                     embedding_case({2, 700}, 40, 24, is_weight, {0.2, key, -1, 0}),
                     embedding_case({0, 5}, 4, 3, is_weight, {0.5, key, 1, 0})});
}

TEST_CASE(
    "embedding and dropout in one have the bits of the two, gradients are added to those there",
    "[ops][embedding][dropout]") {
  const Tensor ids = draw_ids({4, 30}, 50);
  const Tensor values = Tensor::empty({50, 40}, DType::f32),
               dy = Tensor::empty({4, 30, 40}, DType::f32);
  for (size_t i = 0; i < values.span<float>().size(); ++i)
    values.span<float>()[i] = random_uniform(RandomKey{1}, i) - 0.5f;
  for (size_t i = 0; i < dy.span<float>().size(); ++i)
    dy.span<float>()[i] = random_uniform(RandomKey{2}, i) - 0.5f;
  for (int broadcast_dim : {-1, 1}) {
    const Dropout options{0.25, RandomKey{3}, broadcast_dim, 7};
    const Var fused = Var::leaf(values), parts = Var::leaf(values);
    const Var y = embedding(fused, ids, DType::f32, options);
    const Var z = dropout(embedding(parts, ids, DType::f32), options);
    test::require_same_bits(y.value(), z.value());
    backward({y}, {dy});
    backward({z}, {dy});
    test::require_same_bits(fused.grad(), parts.grad());
    // Once more into the same sum.
    backward({embedding(fused, ids, DType::f32, options)}, {dy});
    std::vector<double> twice = test::values_of(parts.grad());
    for (double& value : twice) value *= 2;
    test::require_close(fused.grad(), twice, test::Tolerance::exact());
  }
}

TEST_CASE("embedding has the same bits with any number of threads", "[ops][embedding]") {
  // Each frequent id is summed from hundreds of bf16 rows in f32, in a different order than f64's
  // rounding sees.
  auto op_case = embedding_case({8, 256}, 300, 40, true);
  op_case.gradient_tolerance.f32 = {1e-4, 1e-5};
  test::check_op(op_case);
}

TEST_CASE("embedding of one id many times, and of ids of many bits", "[ops][embedding]") {
  auto one = embedding_case({5, 270}, 1, 24, true);
  one.gradient_tolerance.f32 = {1e-3, 1e-5};  // sums of 1350 terms of either sign
  one.gradient_tolerance.bf16 = {2e-2, 2e-2};
  test::check_op(one);
  test::check_op(embedding_case({3, 1500}, 70000, 2, true));
}

TEST_CASE("the gradients of two look-ups are added on a device as on the CPU", "[ops][embedding]") {
  const Tensor ids = draw_ids({4, 70}, 30), dy = Tensor::empty({4, 70, 40}, DType::f32);
  for (size_t i = 0; i < dy.span<float>().size(); ++i)
    dy.span<float>()[i] = random_uniform(RandomKey{2}, i) - 0.5f;
  const auto twice = [&](Device device) {
    const Var table = Var::leaf(Tensor::full({30, 40}, DType::f32, 1).on(device));
    for (double rate : {0.0, 0.3})
      backward({embedding(table, ids.on(device), DType::f32, {rate, RandomKey{3}})},
               {dy.on(device)});
    return table.grad().on(Device::cpu);
  };
  test::require_close(twice(Device::emu), twice(Device::cpu), {1e-5, 1e-5});
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
