// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/linear_cross_entropy.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/random.h"
#include "lib/ops/add.h"
#include "lib/ops/linear.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

// Every `every`-th target is padding; 0: none.
Tensor draw_targets(int64_t count, int64_t vocabulary, int64_t every) {
  const Tensor targets = Tensor::persistent({count}, DType::i32);
  for (int64_t n = 0; n < count; ++n)
    targets.data<int32_t>()[n] =
        every > 0 && n % every == 1
            ? 0
            : 1 + static_cast<int32_t>(random_bits(RandomKey{5}, static_cast<uint64_t>(n)) %
                                       static_cast<uint64_t>(vocabulary - 1));
  return targets;
}

struct Sizes {
  int64_t tokens, width, vocabulary;
};

// t5x's loss of the logits factor * h w, term by term.
double naive_total(const test::OpValues& x, const Sizes& sizes, const Tensor& targets,
                   const LinearCrossEntropyOptions& options) {
  double total = 0;
  const auto width = static_cast<size_t>(sizes.width);
  const auto vocabulary = static_cast<size_t>(sizes.vocabulary);
  const double on = 1 - options.loss.label_smoothing;
  const double off = options.loss.label_smoothing / static_cast<double>(sizes.vocabulary - 1);
  for (size_t n = 0; n < static_cast<size_t>(sizes.tokens); ++n) {
    const auto target = static_cast<size_t>(targets.data<int32_t>()[n]);
    if (target == 0) continue;
    std::vector<double> logits(vocabulary);
    double z = 0;
    for (size_t v = 0; v < vocabulary; ++v) {
      for (size_t d = 0; d < width; ++d)
        logits[v] += options.factor * x[0][n * width + d] *
                     x[1][options.is_transposed ? v * width + d : d * vocabulary + v];
      z += std::exp(logits[v]);
    }
    total += options.loss.z_loss * std::log(z) * std::log(z);
    for (size_t v = 0; v < vocabulary; ++v) {
      const double soft = v == target ? on : off;
      if (soft > 0) total += soft * (std::log(soft) - (logits[v] - std::log(z)));
    }
  }
  return total;
}

Shape weight_shape(const Sizes& sizes, bool is_transposed) {
  return is_transposed ? Shape{sizes.vocabulary, sizes.width}
                       : Shape{sizes.width, sizes.vocabulary};
}

test::OpCase loss_case(const Sizes& sizes, const LinearCrossEntropyOptions& options,
                       int64_t padding = 3) {
  const Tensor targets = draw_targets(sizes.tokens, sizes.vocabulary, padding);
  test::OpCase op_case;
  op_case.name = format("linear_cross_entropy {} x {} of {}, chunks of {}{}, z-loss {}",
                        sizes.tokens, sizes.width, sizes.vocabulary, options.chunk_rows,
                        options.is_transposed ? ", tied" : "", options.loss.z_loss);
  op_case.inputs = {{.shape = {sizes.tokens, sizes.width}, .low = -2, .high = 2},
                    {.shape = weight_shape(sizes, options.is_transposed),
                     .low = -1,
                     .high = 1,
                     .is_weight = true}};
  op_case.call = [=](const test::OpArguments& x) {
    return linear_cross_entropy(x[0], x[1], x.on_device(targets), options).total;
  };
  op_case.reference = [=](const test::OpValues& x) {
    return test::OpValues{{naive_total(x, sizes, targets, options)}};
  };
  // Logits and their gradient are rounded to bf16, or made from rounded factors.
  op_case.tolerance.bf16 = {5e-2, 1e-2};
  op_case.gradient_tolerance.bf16 = {3e-2, 2e-2};
  op_case.flops = 2.0 * static_cast<double>(sizes.tokens * sizes.width * sizes.vocabulary);
  return op_case;
}

LinearCrossEntropyOptions tied(int64_t chunk_rows = 0) {
  return {.loss = {.z_loss = 1e-2}, .factor = 0.3, .is_transposed = true, .chunk_rows = chunk_rows};
}

Tensor draw(const Shape& shape, uint64_t seed) {
  const Tensor values = Tensor::empty(shape, DType::f32);
  for (size_t i = 0; i < values.span<float>().size(); ++i)
    values.span<float>()[i] = 2 * random_uniform(RandomKey{seed}, i) - 1;
  return values;
}

struct Outcome {
  CrossEntropy loss;
  Tensor dh, dw;
};

template <class F>
Outcome run(const Tensor& h, const Tensor& w, double coefficient, F&& f) {
  const Var h_leaf = Var::leaf(h), w_leaf = Var::leaf(w);
  Outcome outcome;
  outcome.loss = f(h_leaf, w_leaf);
  const Var& total = outcome.loss.total;
  backward({total}, {Tensor::full({1}, total.dtype(), coefficient, total.device())});
  outcome.dh = h_leaf.grad();
  outcome.dw = w_leaf.grad();
  return outcome;
}

}  // namespace

TEST_CASE("linear_cross_entropy is the loss of the logits", "[ops][cross_entropy]") {
  LinearCrossEntropyOptions untied{.loss = {.z_loss = 1e-3, .label_smoothing = 0.1}};
  test::check_ops({loss_case({7, 6, 11}, tied()), loss_case({7, 6, 11}, tied(2)),
                   loss_case({7, 6, 11}, untied), loss_case({1, 1, 2}, tied(), 0),
                   loss_case({0, 4, 5}, tied()), loss_case({2, 3, 5}, untied, 2)});
  untied.chunk_rows = 3;
  test::check_op(loss_case({7, 6, 11}, untied, 0));
}

TEST_CASE("linear_cross_entropy on several threads", "[ops][cross_entropy]") {
  auto op_case = loss_case({90, 40, 700}, tied(48));
  op_case.tolerance.bf16 = {1, 1e-2};  // a sum of 60 terms
  op_case.gradient_tolerance.f32 = {1e-5, 1e-4};
  test::check_op(op_case);
  // No row in vectors of 16 bytes.
  op_case = loss_case({21, 9, 83}, tied(8));
  op_case.tolerance.bf16 = {1, 1e-2};
  test::check_op(op_case);
}

TEST_CASE("linear_cross_entropy in one chunk is linear and cross_entropy, to the bit in f32",
          "[ops][cross_entropy]") {
  const Tensor h = draw({50, 48}, 1), w = draw({300, 48}, 2);
  const Tensor targets = draw_targets(50, 300, 0);
  LinearCrossEntropyOptions options = tied(50);
  options.expected_gradient = 1.0 / 7;
  const Outcome parts = run(h, w, 1.0 / 7, [&](Var x, Var table) {
    return cross_entropy(linear_transposed(scale(x, options.factor), table), targets, options.loss);
  });
  // The expected gradient, and another one.
  for (double coefficient : {1.0 / 7, 2.0 / 7}) {
    const Outcome fused = run(h, w, coefficient, [&](Var x, Var table) {
      return linear_cross_entropy(x, table, targets, options);
    });
    test::require_same_bits(fused.loss.total.value(), parts.loss.total.value());
    CHECK(fused.loss.read().cross_entropy == parts.loss.read().cross_entropy);
    CHECK(fused.loss.read().num_targets == parts.loss.read().num_targets);
    CHECK(fused.loss.read().num_correct == parts.loss.read().num_correct);
    for (const auto& [made, expected] :
         {std::pair{fused.dh, parts.dh}, std::pair{fused.dw, parts.dw}}) {
      if (coefficient == options.expected_gradient) {
        test::require_same_bits(made, expected);
        continue;
      }
      std::vector<double> doubled = test::values_of(expected);
      for (double& value : doubled) value *= 2;
      test::require_close(made, doubled, {0, 1e-6});
    }
  }
}

TEST_CASE("chunks and left-out rows do not change the loss", "[ops][cross_entropy]") {
  const Tensor h = draw({50, 48}, 1), w = draw({300, 48}, 2);
  const Tensor targets = draw_targets(50, 300, 4);
  const Outcome whole = run(
      h, w, 1, [&](Var x, Var table) { return linear_cross_entropy(x, table, targets, tied(50)); });
  const Outcome parts = run(h, w, 1, [&](Var x, Var table) {
    return cross_entropy(linear_transposed(scale(x, 0.3), table), targets, tied().loss);
  });
  for (int64_t rows : {7, 16, 38}) {
    const Outcome chunked = run(h, w, 1, [&](Var x, Var table) {
      return linear_cross_entropy(x, table, targets, tied(rows));
    });
    test::require_close(chunked.dh, whole.dh, {1e-6, 1e-5});
    test::require_close(chunked.dw, whole.dw, {1e-6, 1e-5});
    test::require_close(chunked.loss.read().cross_entropy, parts.loss.read().cross_entropy,
                        {0, 1e-6});
    test::require_close(chunked.dw, parts.dw, {1e-6, 1e-5});
    CHECK(chunked.loss.read().num_targets == parts.loss.read().num_targets);
    CHECK(chunked.loss.read().num_correct == parts.loss.read().num_correct);
  }
  test::require_close(whole.dh.slice(0, 1, 2), std::vector<double>(48), test::Tolerance::exact());
}

TEST_CASE("another gradient than the expected one is made up for on a device",
          "[ops][cross_entropy][gpu]") {
  const Tensor h = draw({20, 16}, 1), w = draw({40, 16}, 2), targets = draw_targets(20, 40, 4);
  const auto loss = [&](Device device, double expected) {
    return run(h.on(device), w.on(device), 0.5, [&](Var x, Var table) {
      LinearCrossEntropyOptions options = tied(7);
      options.expected_gradient = expected;
      return linear_cross_entropy(x, table, targets.on(device), options);
    });
  };
  const Outcome here = loss(Device::cpu, 0.5);
  for (double expected : {0.5, 2.0}) {
    const Outcome there = loss(Device::emu, expected);
    test::require_close(there.dh.on(Device::cpu), test::values_of(here.dh), {1e-6, 1e-5});
    test::require_close(there.dw.on(Device::cpu), test::values_of(here.dw), {1e-6, 1e-5});
    CHECK(there.loss.read().num_targets == here.loss.read().num_targets);
    CHECK(there.loss.read().num_correct == here.loss.read().num_correct);
  }
}

TEST_CASE("without recording there is a loss and no gradient", "[ops][cross_entropy]") {
  const Var h = Var::leaf(draw({5, 8}, 1)), w = Var::leaf(draw({11, 8}, 2));
  const Tensor targets = draw_targets(5, 11, 0);
  NoGradScope no_grad;
  const CrossEntropy loss = linear_cross_entropy(h, w, targets, tied());
  CHECK(loss.total.node() == nullptr);
  CHECK(loss.read().num_targets == 5);
}

TEST_CASE("a chunk of logits is bounded", "[ops][cross_entropy]") {
  CHECK(loss_chunk_rows(0, 100) == 0);
  CHECK(loss_chunk_rows(10, 100) == 10);
  for (int64_t vocabulary : {100, 32128, 250112})
    for (int64_t tokens : {1, 100, 912, 5000, 100000}) {
      const int64_t rows = loss_chunk_rows(tokens, vocabulary);
      CHECK(rows >= 1);
      CHECK(rows <= tokens);
      CHECK(rows <= std::max<int64_t>(256, (1 << 24) / vocabulary + 16));
      const int64_t on_gpu = loss_chunk_rows(tokens, vocabulary, Device::cuda);
      CHECK(on_gpu <= tokens);
      CHECK(on_gpu <= std::max<int64_t>(2048, (1 << 27) / vocabulary + 128));
    }
}

TEST_CASE("linear_cross_entropy refuses operands that do not fit", "[ops][cross_entropy]") {
  const Var h(Tensor::zeros({2, 3}, DType::f32)), w(Tensor::zeros({5, 3}, DType::f32));
  const Tensor targets = Tensor::from<int32_t>({2}, {1, 4});
  CHECK_THROWS_WITH(linear_cross_entropy(h, w, targets, {}),
                    Catch::Contains("h [2, 3] and w [5, 3] do not fit"));
  CHECK_THROWS_WITH(linear_cross_entropy(h, w, Tensor::from<int32_t>({2}, {0, 5}), tied()),
                    Catch::Contains("target 5, the vocabulary has 5 entries"));
  CHECK_THROWS_AS(linear_cross_entropy(h, w, Tensor::from<int32_t>({1}, {1}), tied()), BugError);
  CHECK_THROWS_AS(linear_cross_entropy(h, Var(w.value().to(DType::bf16)), targets, tied()),
                  BugError);
}

TEST_CASE("linear_cross_entropy speed", "[ops][cross_entropy][.bench]") {
  // Chunks against the whole, at two numbers of tokens.
  const std::pair<int64_t, int64_t> cases[] = {{912, 912},  {912, 464},  {912, 240},
                                               {3648, 912}, {3648, 464}, {3648, 240}};
  for (const auto& [tokens, rows] : cases) {
    auto op_case = loss_case({tokens, 512, 32128}, tied(rows), 0);
    op_case.dtypes = {DType::f32, DType::bf16};
    test::time_op(op_case);
  }
}

}  // namespace stmoe
