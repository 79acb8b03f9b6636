// SPDX-License-Identifier: Apache-2.0
// Attention against the formula written out in f64, with every mask, both kinds of dropout (whose
// masks the reference draws from the same counters), awkward sizes, blocks of keys and decoding.
#include "lib/ops/attention.h"

#include <cmath>
#include <limits>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/ops/product_peak.h"
#include "tests/ops/attention_case.h"

namespace stmoe {
namespace {

using test::packed_segments;
using Case = test::AttentionCase;

void check(const std::vector<Case>& cases) {
  for (const Case& c : cases) test::check_op(test::attention_case(c));
}

}  // namespace

TEST_CASE("attention is the softmax of scores and bias times the values", "[ops][attention]") {
  check(
      {{}, {.has_bias = false}, {.queries = 7, .keys = 4}, {.queries = 6, .keys = 70, .width = 3}});
}

TEST_CASE("attention of sizes around one, a register tile and a panel", "[ops][attention]") {
  for (int64_t size : {1, 3, 17, 65})
    check({{.batch = 1, .queries = size, .keys = size, .heads = 1, .width = 5},
           {.batch = 1, .queries = 7, .keys = size, .heads = 2, .width = 1},
           {.batch = 1, .queries = size, .keys = 9, .heads = 1, .width = 65}});
  check({{.batch = 0}, {.queries = 0}, {.keys = 0, .has_bias = false}, {.heads = 0}});
}

TEST_CASE("causal attention sees no later key", "[ops][attention]") {
  check({{.queries = 9, .keys = 9, .is_causal = true},
         {.batch = 1, .queries = 67, .keys = 67, .is_causal = true},
         {.queries = 5, .keys = 12, .is_causal = true, .query_offset = 7},
         {.queries = 6, .keys = 3, .is_causal = true},
         {.batch = 1,
          .queries = 55,
          .keys = 130,
          .heads = 1,
          .is_causal = true,
          .query_offset = 60}});
}

TEST_CASE("attention stays within segments and gives zero to padding", "[ops][attention]") {
  for (bool is_causal : {false, true}) {
    Case c{.batch = 3, .queries = 11, .keys = 11, .is_causal = is_causal};
    c.query_segments = c.key_segments = packed_segments(3, 11);
    Case longer{.batch = 2, .queries = 130, .keys = 130, .heads = 1, .is_causal = is_causal};
    longer.query_segments = longer.key_segments = packed_segments(2, 130);
    check({c, longer});
  }
  Case cross{.batch = 3, .queries = 8, .keys = 14};
  cross.query_segments = packed_segments(3, 8);
  cross.key_segments = packed_segments(3, 14);
  check({cross});
}

TEST_CASE("a query that sees no key gives zeros and passes no gradient", "[ops][attention]") {
  for (int64_t queries : {2, 6}) {
    Case c{.batch = 1, .queries = queries, .keys = 6};
    c.query_segments.assign(static_cast<size_t>(queries), 1);
    c.query_segments[1] = 0;
    c.key_segments = {1, 1, 0, 1, 1, 0};
    check({c});
    c.key_segments = {2, 2, 0, 2, 2, 0};  // no query sees anything
    const Var x = Var::leaf(Tensor::full({1, queries, 2, 4}, DType::f32, 3e38));
    const Var kv = Var::leaf(Tensor::full({1, 6, 2, 4}, DType::f32, 1));
    const Var y = attention(x, kv, kv, Var(), 0, c.options());
    backward({y}, {Tensor::full(y.shape(), DType::f32, 1)});
    for (const Tensor& zero : {y.value(), x.grad(), kv.grad()})
      test::require_close(zero, Tensor::zeros(zero.shape(), DType::f32), test::Tolerance::exact());
  }
}

TEST_CASE("attention drops the same weights forward and backward", "[ops][attention]") {
  for (bool is_shared : {true, false}) {
    Case c{
        .queries = 9, .keys = 13, .dropout = 0.3, .is_dropout_shared = is_shared, .first_row = 5};
    Case few = c, packed = c, longer = c;
    few.queries = 2;
    packed.keys = packed.queries;
    packed.query_segments = packed.key_segments = packed_segments(2, 9);
    packed.is_causal = true;
    longer.batch = longer.heads = 1;
    longer.queries = 53;
    longer.keys = 131;
    check({c, few, packed, longer});
  }
}

TEST_CASE("dropped attention weights depend on the global row only", "[ops][attention]") {
  for (bool is_shared : {true, false}) {
    Case whole{.batch = 3, .queries = 6, .keys = 6, .dropout = 0.5, .is_dropout_shared = is_shared};
    Case last = whole;
    last.batch = 1;
    last.first_row = 2;
    const Tensor x = Tensor::full({3, 6, 2, 4}, DType::f32, 0.5), none;
    const Var all(x), one(x.slice(0, 2, 3));
    const Tensor y = attention(all, all, all, Var(), 0, whole.options()).value();
    test::require_same_bits(attention(one, one, one, Var(), 0, last.options()).value(),
                            y.slice(0, 2, 3).contiguous());
  }
}

TEST_CASE("attention over several blocks of keys", "[ops][attention][slow]") {
  Case c{.batch = 1, .queries = 50, .keys = 1100, .heads = 1, .width = 8};
  Case causal{.batch = 1, .queries = 100, .keys = 700, .heads = 1, .width = 8, .is_causal = true};
  causal.query_offset = 560;
  Case dropped = c;
  dropped.dropout = 0.2;
  dropped.is_dropout_shared = false;
  Case packed{.batch = 1, .queries = 600, .keys = 600, .heads = 1, .width = 4};
  packed.query_segments = packed.key_segments = packed_segments(1, 600);
  packed.query_segments[599] =
      packed.key_segments[0];  // sees a distant key: several blocks, the last empty
  check({c, causal, dropped, packed});
}

TEST_CASE("attention's lse and its z-loss, with every mask and dropout",
          "[ops][attention][z_loss]") {
  Case packed{.batch = 3, .queries = 11, .keys = 11, .is_causal = true};
  packed.query_segments = packed.key_segments = packed_segments(3, 11);
  Case cross{.batch = 3, .queries = 8, .keys = 14, .dropout = 0.3};
  cross.query_segments = packed_segments(3, 8);
  cross.key_segments = packed_segments(3, 14);
  Case few{.queries = 2, .keys = 7, .has_bias = false};
  Case longer{.batch = 1, .queries = 50, .keys = 700, .heads = 1, .width = 8};
  Case each{.queries = 9, .keys = 13, .dropout = 0.3, .is_dropout_shared = false};
  for (const Case& c : {Case{}, packed, cross, few, longer, each})
    test::check_op(test::z_loss_case(c));
}

TEST_CASE("the z-loss is the mean square, of few and of many lse", "[ops][attention][z_loss]") {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 2, 7}, Shape{2, 3, 150}, Shape{0, 2, 3}}) {
    test::OpCase op_case;
    op_case.name = "attention z-loss " + shape.text();
    op_case.inputs = {{.shape = shape, .low = -3, .high = 3}};
    op_case.call = [](const test::OpArguments& x) { return attention_z_loss(x[0]); };
    op_case.reference = [](const test::OpValues& x) {
      double sum = 0;
      for (double lse : x[0]) sum += lse * lse;
      return test::OpValues{{x[0].empty() ? 0 : sum / static_cast<double>(x[0].size())}};
    };
    op_case.dtypes = {DType::f64, DType::f32};
    test::check_op(op_case);
  }
}

TEST_CASE("the z-loss leaves out queries that see no key, and either result may be unused",
          "[ops][attention][z_loss]") {
  const double none = -std::numeric_limits<double>::infinity();
  const Var lse = Var::leaf(Tensor::from<double>({1, 2, 2}, {1, none, -3, 2}));
  const Var loss = attention_z_loss(lse);
  test::require_close(loss.value().item(), (1.0 + 9 + 4) / 3, {0, 1e-15});
  backward(loss);
  test::require_close(lse.grad(), {2.0 / 3, 0, -2, 4.0 / 3}, {0, 1e-15});
  const Var blind = Var::leaf(Tensor::from<double>({1, 1, 1}, {none}));
  const Var nothing = attention_z_loss(blind);
  CHECK(nothing.value().item() == 0);
  backward(nothing);
  CHECK(blind.grad().item() == 0);
  // One of the two results of the attention alone.
  const Case c{.has_bias = false};
  const Tensor values = Tensor::full({2, 5, 2, 4}, DType::f64, 0.5);
  for (bool uses_lse : {false, true}) {
    const Var query = Var::leaf(values), key = Var::leaf(values), value = Var::leaf(values);
    const auto both = attention_with_lse(query, key, value, Var(), 0, c.options());
    const Var used = uses_lse ? both.lse_BHQ : both.y_BQHK;
    backward({used}, {Tensor::full(used.shape(), DType::f64, 1.0)});
    // Equal keys: the lse moves with the query by the key, the result not at all.
    test::require_close(query.grad(), Tensor::full(values.shape(), DType::f64, uses_lse ? 0.5 : 0),
                        {1e-14, 1e-14});
    test::require_close(value.grad(), Tensor::full(values.shape(), DType::f64, uses_lse ? 0 : 1),
                        {1e-14, 1e-14});
  }
}

TEST_CASE("decoding one query at a time gives the rows of the whole attention",
          "[ops][attention]") {
  Case c{.batch = 2, .queries = 9, .keys = 9, .heads = 3, .width = 16, .is_causal = true};
  for (DType dtype : {DType::f32, DType::bf16}) {
    const auto draw = [&](int64_t seed) {
      Tensor x = Tensor::empty({2, 9, 3, 16}, DType::f32);
      for (int64_t i = 0; i < x.numel(); ++i)
        x.data<float>()[i] = random_uniform(RandomKey{7}.fold(static_cast<uint64_t>(seed)),
                                            static_cast<uint64_t>(i)) -
                             0.5f;
      return x.to(dtype);
    };
    const Tensor query = draw(1), key = draw(2), value = draw(3);
    const Var bias(Tensor::full({3, 20}, DType::f32, 0.25));
    const Tensor y = attention(Var(query), Var(key), Var(value), bias, -10, c.options()).value();
    for (int64_t q = 0; q < 9; ++q) {
      AttentionOptions options;
      options.is_causal = true;
      options.query_offset = q;
      const Tensor row = attention(Var(query.slice(1, q, q + 1)), Var(key.slice(1, 0, q + 1)),
                                   Var(value.slice(1, 0, q + 1)), bias, -10, options)
                             .value();
      test::require_close(row, y.slice(1, q, q + 1).contiguous(), test::Tolerance::of(dtype));
    }
  }
}

TEST_CASE("a GPU's way to attention is named in recipes", "[ops][attention]") {
  for (const char* name : {"auto", "materialised", "fused"})
    CHECK(name_of(parse_attention_method(name)) == name);
  CHECK_THROWS_AS(parse_attention_method("flash"), UsageError);
}

TEST_CASE("attention keeps huge scores apart without overflow", "[ops][attention]") {
  const Var query = Var::leaf(Tensor::from<float>({1, 5, 1, 1}, {1e4f, -1e4f, 0, 1, 1e4f}));
  const Var key(Tensor::from<float>({1, 2, 1, 1}, {1e4f, -1e4f}));
  const Var value(Tensor::from<float>({1, 2, 1, 1}, {3, 5}));
  const Var y = attention(query, key, value, Var(), 0, {});
  test::require_close(y.value(), {3, 5, 4, 3, 3}, test::Tolerance::of(DType::f32));
  backward({y}, {Tensor::full(y.shape(), DType::f32, 1)});
  test::require_close(query.grad(), {0, 0, -1e4, 0, 0}, {1e-3, 1e-5});
}

TEST_CASE("attention names what does not fit", "[ops][attention]") {
  const Var x(Tensor::zeros({1, 5, 2, 4}, DType::f32));
  AttentionOptions options;
  options.query_segments_BQ = Tensor::zeros({1, 5}, DType::i32);
  REQUIRE_THROWS_WITH(attention(x, x, x, Var(), 0, options), Catch::Contains("both or not at all"));
  options.key_segments_BK = Tensor::zeros({1, 4}, DType::i32);
  REQUIRE_THROWS_WITH(attention(x, x, x, Var(), 0, options),
                      Catch::Contains("key segments are i32 [1, 4], expected i32 [1, 5]"));
  REQUIRE_THROWS_WITH(attention(x, x, x, Var(Tensor::zeros({2, 9}, DType::f32)), -3, {}),
                      Catch::Contains("bias covers relative positions [-3, 5]"));
  REQUIRE_NOTHROW(attention(x, x, x, Var(Tensor::zeros({2, 9}, DType::f32)), -4, {}));
}

TEST_CASE("attention of a training step", "[.bench]") {
  for (DType dtype : {DType::f32, DType::bf16})
    WARN("product peak " << name_of(dtype) << ": " << measure_product_peak(dtype) * 1e-9
                         << " GFLOP/s");
  Case encoder{.batch = 8, .queries = 512, .keys = 512, .heads = 8, .width = 64, .dropout = 0.1};
  encoder.query_segments.assign(8 * 512, 1);
  encoder.key_segments = encoder.query_segments;
  Case each = encoder, decoder = encoder, cross = encoder, longer = encoder;
  each.is_dropout_shared = false;
  decoder.queries = decoder.keys = cross.queries = 114;
  decoder.is_causal = true;
  cross.has_bias = false;
  for (Case* c : {&decoder, &cross}) c->query_segments.resize(8 * 114);
  decoder.key_segments.resize(8 * 114);
  longer.batch = 2;
  longer.queries = longer.keys = 2048;
  for (const Case& c : {encoder, each, decoder, cross, longer}) {
    auto op_case = test::attention_case(c);
    op_case.flops = 4.0 * static_cast<double>(c.batch * c.heads * c.queries * c.keys * c.width);
    test::time_op(op_case);
  }
}

}  // namespace stmoe
