// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU, emulated and where there is one: both ways against the CPU.
#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "tests/ops/attention_case.h"

namespace stmoe {
namespace {

using test::packed_segments;
using Case = test::AttentionCase;

// d_kv 64 and 128 are what a GPU has fused kernels for, in bf16 alone. The reference and the CPU
// take no notice of the method. Inputs are so small that scores are of order 1, as in a model:
// rounding gradients of weights to bf16 costs 2^-9 of the largest.
void check_on_gpu(Case c) {
  for (AttentionMethod method : {AttentionMethod::fused, AttentionMethod::materialised}) {
    c.method = method;
    test::OpCase op_case = test::z_loss_case(c);
    op_case.dtypes = {DType::bf16};
    if (method == AttentionMethod::materialised) op_case.dtypes.push_back(DType::f32);
    for (size_t i = 0; i < 3; ++i) op_case.inputs[i].high = -(op_case.inputs[i].low = -0.6);
    test::check_op(op_case);
  }
}

}  // namespace

TEST_CASE("a GPU's two ways to attention: sizes around tiles and warps",
          "[ops][attention][gpu_attention]") {
  check_on_gpu({.batch = 1, .queries = 1, .keys = 1, .heads = 1, .width = 64});
  check_on_gpu({.batch = 2, .queries = 17, .keys = 33, .heads = 2, .width = 64});
  check_on_gpu({.batch = 1, .queries = 33, .keys = 17, .heads = 2, .width = 128});
  check_on_gpu({.batch = 1, .queries = 64, .keys = 64, .heads = 1, .width = 128});
  check_on_gpu({.batch = 1, .queries = 130, .keys = 70, .heads = 1, .width = 64});
  check_on_gpu({.batch = 1, .queries = 65, .keys = 150, .heads = 1, .width = 128});
  check_on_gpu({.batch = 1, .queries = 40, .keys = 65, .heads = 2, .width = 64, .has_bias = false});
  check_on_gpu({.batch = 1, .queries = 20, .keys = 1100, .heads = 1, .width = 64});
  check_on_gpu({.queries = 0, .width = 64});
  check_on_gpu({.keys = 0, .width = 128, .has_bias = false});
  check_on_gpu({.batch = 0, .width = 64});
}

TEST_CASE("a GPU's two ways to attention: masks", "[ops][attention][gpu_attention]") {
  for (int64_t width : {64, 128})
    for (bool is_causal : {false, true}) {
      Case c{.batch = 2,
             .queries = 75,
             .keys = 75,
             .heads = 1,
             .width = width,
             .is_causal = is_causal};
      c.query_segments = c.key_segments = packed_segments(2, 75);
      check_on_gpu(c);
    }
  check_on_gpu(
      {.batch = 1, .queries = 150, .keys = 150, .heads = 1, .width = 64, .is_causal = true});
  check_on_gpu({.batch = 1,
                .queries = 20,
                .keys = 130,
                .heads = 1,
                .width = 64,
                .is_causal = true,
                .query_offset = 100});
  check_on_gpu(
      {.batch = 1, .queries = 70, .keys = 20, .heads = 1, .width = 128, .is_causal = true});
  Case cross{.batch = 3, .queries = 30, .keys = 140, .heads = 1, .width = 64};
  cross.query_segments = packed_segments(3, 30);
  cross.key_segments = packed_segments(3, 140);
  check_on_gpu(cross);
  // Two long segments: whole tiles are seen, others not at all; and padding alone.
  Case halves{.batch = 2, .queries = 200, .keys = 200, .heads = 1, .width = 64};
  for (int64_t i = 0; i < 400; ++i) halves.query_segments.push_back(i >= 200 ? 0 : i < 90 ? 1 : 2);
  halves.key_segments = halves.query_segments;
  check_on_gpu(halves);
}

TEST_CASE("a GPU's two ways to attention: dropout", "[ops][attention][gpu_attention]") {
  for (bool is_shared : {true, false})
    for (int64_t width : {64, 128}) {
      Case c{.batch = 2,
             .queries = 21,
             .keys = 75,
             .heads = 2,
             .width = width,
             .dropout = 0.3,
             .is_dropout_shared = is_shared,
             .first_row = 3};
      check_on_gpu(c);
      c = {.batch = 1,
           .queries = 70,
           .keys = 40,
           .heads = 1,
           .width = width,
           .is_causal = true,
           .dropout = 0.2,
           .is_dropout_shared = is_shared};
      check_on_gpu(c);
    }
}

TEST_CASE("attention on a GPU with other widths of heads", "[ops][attention][gpu_attention]") {
  for (int64_t width : {32, 40, 72})
    test::check_op(test::z_loss_case({.queries = 23, .keys = 45, .heads = 3, .width = width}));
}

TEST_CASE("attention on a GPU reads heads where the projections left them",
          "[ops][attention][gpu_attention]") {
  const auto draw = [](const Shape& shape, const char* name) {
    const Tensor x = Tensor::empty(shape, DType::f32);
    for (int64_t i = 0; i < x.numel(); ++i)
      x.data<float>()[i] = random_uniform(RandomKey{5}.fold(name), static_cast<uint64_t>(i)) - 0.5f;
    return x.to(DType::bf16);
  };
  // Queries, keys and values side by side; then each row of a head one element off, which the fused
  // kernels do not take.
  const Tensor aligned = draw({2, 40, 6, 64}, "aligned"), odd = draw({2, 40, 6, 67}, "odd");
  const Tensor dy = draw({2, 40, 2, 64}, "dy");
  for (bool is_aligned : {true, false}) {
    const auto run = [&](Device device) {
      const Tensor there = is_aligned ? aligned.on(device) : odd.on(device).slice(3, 1, 65);
      Var inputs[3];
      for (int i = 0; i < 3; ++i) inputs[i] = Var::leaf(there.slice(2, 2 * i, 2 * i + 2));
      const Var y = attention(inputs[0], inputs[1], inputs[2], Var(), 0, {});
      backward({y}, {dy.on(device)});
      std::vector<Tensor> results{y.value()};
      for (const Var& input : inputs) results.push_back(input.grad());
      return results;
    };
    const auto expected = run(Device::cpu), actual = run(Device::emu);
    for (size_t i = 0; i < expected.size(); ++i)
      test::require_close(actual[i].on(Device::cpu), expected[i], {2e-2, 2e-2});
  }
}

TEST_CASE("fused attention says what it needs", "[ops][attention][gpu_attention]") {
  const auto attend = [](const Shape& shape, DType dtype) {
    const Var x(Tensor::zeros(shape, dtype, Device::emu));
    AttentionOptions options;
    options.method = AttentionMethod::fused;
    attention(x, x, x, Var(), 0, options);
  };
  attend({1, 2, 1, 64}, DType::bf16);
  CHECK_THROWS_AS(attend({1, 2, 1, 64}, DType::f32), UsageError);
  CHECK_THROWS_AS(attend({1, 2, 1, 96}, DType::bf16), UsageError);
}

}  // namespace stmoe
