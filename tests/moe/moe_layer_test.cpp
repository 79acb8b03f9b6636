// SPDX-License-Identifier: Apache-2.0
#include "lib/moe/moe_layer.h"

#include <cmath>
#include <functional>

#include <catch2/catch.hpp>

#include "lib/base/threads.h"
#include "lib/hdf5/file.h"
#include "lib/ops/add.h"
#include "tests/moe/layer_checks.h"

namespace stmoe::test {
namespace {

Tensor read(const Hdf5File& file, const std::string& name) {
  const Hdf5Dataset dataset = file.dataset(name);
  return Tensor::from<double>(Shape(dataset.shape()), dataset.values<double>());
}

// The layer with the golden file's weights; two groups of 14 tokens as two sequences.
struct GoldenLayer {
  GoldenLayer(const std::string& name, const std::string& yaml, DType dtype)
      : file(Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/" + name)),
        under_test(moe_config(yaml), expert_shape(8, 10), dtype),
        x(Var::leaf(read(file, "x").reshape({2, 14, 8}).to(dtype))) {
    under_test.set("router/kernel", read(file, "router_kernel"));
    under_test.set("experts/wi/kernel", read(file, "wi"));
    under_test.set("experts/wo/kernel", read(file, "wo"));
  }
  // L = sum(y * dy) + 0.01 balance + 0.001 z, as in scripts/golden/moe_layer.py.
  Var loss(const MoeLayer::Output& output) const {
    const Var dy(read(file, "dy").reshape({2, 14, 8}).to(x.dtype()));
    return weighted_sum(
        {sum(multiply(output.y_BLD, dy)), output.load_balance_loss, output.router_z_loss},
        {1.0, 0.01, 0.001});
  }

  Hdf5File file;
  LayerUnderTest under_test;
  Var x;
};

void check_golden(const std::string& name, const std::string& yaml, DType dtype,
                  Tolerance tolerance) {
  CAPTURE(name, name_of(dtype));
  const GoldenLayer golden(name, yaml, dtype);
  ForwardContext context;
  context.compute = dtype;
  context.is_training = true;
  const auto output = golden.under_test.layer.forward(golden.x, Tensor(), context);
  require_close(output.y_BLD.value().reshape({28, 8}), read(golden.file, "y"), tolerance);
  require_close(output.load_balance_loss.value().item(),
                read(golden.file, "load_balance_loss").item(), tolerance);
  require_close(output.router_z_loss.value().item(), read(golden.file, "router_z_loss").item(),
                tolerance);
  REQUIRE(statistics_of(output.tally).dropped_fraction > 0);
  const Var loss = golden.loss(output);
  require_close(loss.value().item(), read(golden.file, "loss").item(), tolerance);
  backward(loss);
  require_close(golden.x.grad().reshape({28, 8}), read(golden.file, "gradients/x"), tolerance);
  for (auto [weight, gradient] : {std::pair{"router/kernel", "gradients/router_kernel"},
                                  std::pair{"experts/wi/kernel", "gradients/wi"},
                                  std::pair{"experts/wo/kernel", "gradients/wo"}})
    require_close(golden.under_test.weight(weight).grad(), read(golden.file, gradient), tolerance);
}

TEST_CASE("a layer with overflow gives flaxformer's output, losses and gradients",
          "[moe][layer][golden]") {
  // Capacities 4 (3.5, to even) and 7 of groups of 14 tokens, as in the golden files.
  const std::string switch_yaml =
      "{num_experts: 4, group_size: 14, train_capacity_factor: 1.0, min_capacity: 1, "
      "router: {kind: top_k, k: 1}}";
  const std::string top2_yaml =
      "{num_experts: 4, group_size: 14, train_capacity_factor: 2.0, min_capacity: 1, "
      "router: {kind: top_k, k: 2}}";
  const std::string sequence_yaml =
      "{num_experts: 4, groups: sequence, train_capacity_factor: 1.0, min_capacity: 1, "
      "router: {kind: top_k, k: 1}}";
  check_golden("moe_layer.h5", switch_yaml, DType::f64, {1e-10, 1e-10});
  check_golden("moe_layer.h5", sequence_yaml, DType::f64, {1e-10, 1e-10});
  check_golden("moe_layer_top2.h5", top2_yaml, DType::f64, {1e-10, 1e-10});
  // f32 sums of up to 28 x 10 products of values near one.
  check_golden("moe_layer.h5", switch_yaml, DType::f32, {2e-5, 1e-5});
  check_golden("moe_layer_top2.h5", top2_yaml, DType::f32, {2e-5, 1e-5});
}

void check_layer_gradients(const std::string& yaml, Activation activation,
                           ExpertBias bias = ExpertBias::none) {
  CAPTURE(yaml);
  const LayerUnderTest under_test(moe_config(yaml), expert_shape(5, 7, activation, bias),
                                  DType::f64);
  ForwardContext context;
  context.is_training = true;
  context.compute = DType::f64;
  context.key = RandomKey{2};
  const Tensor mask_BL = Tensor::from<int32_t>({2, 6}, {1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0});
  const Var x = Var::leaf(random_tensor({2, 6, 5}, DType::f64, 7, 2));
  const Var dy(random_tensor({2, 6, 5}, DType::f64, 8));
  double dropped = 0;
  auto loss = [&] {
    const auto output = under_test.layer.forward(x, mask_BL, context);
    dropped = statistics_of(output.tally).dropped_fraction;
    return weighted_sum(
        {sum(multiply(output.y_BLD, dy)), output.load_balance_loss, output.router_z_loss},
        {1.0, 0.7, 0.3});
  };
  std::vector<std::pair<std::string, Var>> leaves = {{"x", x}};
  for (const Parameter& parameter : under_test.store.parameters())
    leaves.emplace_back(parameter.name, parameter.value);
  REQUIRE(leaves.size() == 4u + (activation == Activation::geglu) + (bias != ExpertBias::none));
  require_gradients(leaves, loss);
  REQUIRE(dropped > 0.05);
}

TEST_CASE("the whole layer differentiates, overflow, groups, noise and both losses included",
          "[moe][layer]") {
  check_layer_gradients(
      "{num_experts: 3, group_size: 6, min_capacity: 1, train_capacity_factor: 0.75, "
      "router: {kind: top_k, k: 1, jitter: 0.1}}",
      Activation::relu);
  check_layer_gradients(
      "{num_experts: 3, min_capacity: 1, train_capacity_factor: 1.0, expert_dropout: 0.3, "
      "router: {kind: top_k, k: 2, padding: zeroed}}",
      Activation::geglu);
  const std::string dropped =
      "{num_experts: 3, min_capacity: 1, train_capacity_factor: 1.0, expert_dropout: 0.3, "
      "router: {kind: top_k, k: 2}}";
  check_layer_gradients(dropped, Activation::geglu, ExpertBias::multiplicative);
  check_layer_gradients(dropped, Activation::relu, ExpertBias::additive);
}

// expert e of x: relu(x wi) wo, gelu(x wi) wo or (gelu(x wi_0) * (x wi_1)) wo, the hidden layer
// times or plus the expert's bias, by plain loops.
std::vector<double> run_expert(const LayerUnderTest& under_test, Activation activation,
                               ExpertBias bias, int64_t e, const std::vector<double>& x,
                               int64_t d_ff) {
  auto at = [&](const std::string& name, int64_t i, int64_t j) {
    const Tensor kernel = under_test.weight("experts/" + name + "/kernel").value();
    return kernel.data<double>()[(e * kernel.dim(1) + i) * kernel.dim(2) + j];
  };
  const bool is_gated = activation == Activation::geglu;
  std::vector<double> y(x.size(), 0.0);
  for (int64_t f = 0; f < d_ff; ++f) {
    double gate = 0, linear = 0;
    for (size_t d = 0; d < x.size(); ++d) {
      gate += x[d] * at(is_gated ? "wi_0" : "wi", static_cast<int64_t>(d), f);
      if (is_gated) linear += x[d] * at("wi_1", static_cast<int64_t>(d), f);
    }
    const double gelu =
        0.5 * gate * (1 + std::tanh(std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate)));
    double hidden = is_gated                         ? gelu * linear
                    : activation == Activation::gelu ? gelu
                                                     : std::max(gate, 0.0);
    if (bias != ExpertBias::none) {
      const double b = under_test.weight("experts/bias").value().data<double>()[e * d_ff + f];
      hidden = bias == ExpertBias::additive ? hidden + b : hidden * b;
    }
    for (size_t d = 0; d < y.size(); ++d) y[d] += hidden * at("wo", f, static_cast<int64_t>(d));
  }
  return y;
}

TEST_CASE("a token's result is p times its expert, and zero when it was dropped", "[moe][layer]") {
  const std::pair<Activation, ExpertBias> kinds[] = {
      {Activation::relu, ExpertBias::none},
      {Activation::gelu, ExpertBias::none},
      {Activation::geglu, ExpertBias::none},
      {Activation::geglu, ExpertBias::multiplicative},
      {Activation::relu, ExpertBias::multiplicative},
      {Activation::gelu, ExpertBias::additive}};
  for (const auto& [activation, bias] : kinds) {
    const LayerUnderTest under_test(
        moe_config("{num_experts: 2, min_capacity: 1, train_capacity_factor: 0.5}"),
        expert_shape(3, 4, activation, bias), DType::f64);
    if (bias != ExpertBias::none)
      under_test.set("experts/bias", random_tensor({2, 4}, DType::f64, 9, 3));
    // The router sees the first two channels as logits.
    under_test.set("router/kernel", Tensor::from<double>({3, 2}, {1, 0, 0, 1, 0, 0}));
    const std::vector<double> x = {2, 0, 0.5, 0, 1, -1, 3, 1, 1, 1, 0, 2};
    ForwardContext context;
    context.is_training = true;
    context.compute = DType::f64;
    const auto output =
        under_test.layer.forward(Var(Tensor::from<double>({2, 2, 3}, x)), Tensor(), context);
    // Capacity round(0.5 * 4 / 2) = 1; choices 0 1 0 0: tokens 2 and 3 are dropped.
    REQUIRE(statistics_of(output.tally).dropped_fraction == 0.5);
    std::vector<double> expected;
    for (size_t n = 0; n < 2; ++n) {
      const double larger = n == 0 ? 2 : 1;
      const double p = 1 / (1 + std::exp(-larger));
      for (double value : run_expert(under_test, activation, bias, static_cast<int64_t>(n),
                                     {x.begin() + static_cast<int64_t>(3 * n),
                                      x.begin() + static_cast<int64_t>(3 * n + 3)},
                                     4))
        expected.push_back(p * value);
    }
    expected.resize(12, 0.0);
    require_close(output.y_BLD.value(), expected, {1e-12, 1e-12});
  }
}

MoeLayer::Output run(const LayerUnderTest& under_test, const Tensor& x,
                     const ForwardContext& context) {
  NoGradScope no_grad;
  return under_test.layer.forward(Var(x), Tensor(), context);
}

TEST_CASE("evaluation has its own capacity, and dropless contexts and large factors drop nothing",
          "[moe][layer]") {
  const std::string yaml =
      "{{num_experts: 4, min_capacity: 1, train_capacity_factor: 0.5, eval_capacity_factor: {}}}";
  auto layer = [&](const char* factor) {
    return LayerUnderTest(moe_config(format(fmt::runtime(yaml), factor)), expert_shape(6, 8));
  };
  const LayerUnderTest one = layer("1.0"), four = layer("4.0");
  const Tensor x = random_tensor({4, 30, 6}, DType::f32, 1, 2);
  ForwardContext train, evaluate, dropless;
  train.is_training = true;
  dropless.is_dropless = true;
  const double dropped_train = statistics_of(run(one, x, train).tally).dropped_fraction;
  const double dropped_eval = statistics_of(run(one, x, evaluate).tally).dropped_fraction;
  REQUIRE(dropped_train >= 0.5);
  REQUIRE(dropped_eval > 0);
  REQUIRE(dropped_eval < 0.5);
  const auto all = run(four, x, evaluate);
  REQUIRE(statistics_of(all.tally).dropped_fraction == 0);
  const auto generated = run(one, x, dropless);
  REQUIRE(statistics_of(generated.tally).dropped_fraction == 0);
  require_same_bits(generated.y_BLD.value(), all.y_BLD.value());
}

TEST_CASE("buffers trimmed outside training give what full ones give", "[moe][layer]") {
  const LayerUnderTest under_test(
      moe_config("{num_experts: 4, group_size: 60, train_capacity_factor: 4.0, "
                 "eval_capacity_factor: 4.0, router: {kind: top_k, k: 2}}"),
      expert_shape(6, 8));
  const Tensor x = random_tensor({4, 30, 6}, DType::f32, 1, 2);
  ForwardContext train, evaluate;
  train.is_training = true;
  require_close(run(under_test, x, evaluate).y_BLD.value(), run(under_test, x, train).y_BLD.value(),
                {1e-6, 1e-6});
}

TEST_CASE("expert dropout has its own rate, by default the model's", "[moe][layer]") {
  auto shape = expert_shape(6, 64);
  const Tensor x = random_tensor({2, 30, 6}, DType::f32, 1, 2);
  ForwardContext train, evaluate;
  train.is_training = true;
  train.key = RandomKey{6};
  const std::string rest = "num_experts: 2, train_capacity_factor: 2.0";
  auto y = [&](const std::string& yaml, const ForwardContext& context) {
    return run(LayerUnderTest(moe_config(yaml), shape), x, context).y_BLD.value();
  };
  const Tensor plain = y("{" + rest + "}", train);
  shape.dropout = 0.25;
  const Tensor model_rate = y("{" + rest + "}", train);
  REQUIRE(values_of(model_rate) != values_of(plain));
  require_same_bits(y("{expert_dropout: 0.25, " + rest + "}", train), model_rate);
  require_same_bits(y("{expert_dropout: 0.0, " + rest + "}", train), plain);
  REQUIRE(values_of(y("{expert_dropout: 0.5, " + rest + "}", train)) != values_of(model_rate));
  require_close(y("{" + rest + "}", evaluate), plain, {1e-6, 1e-6});
}

TEST_CASE("in bf16 the router stays in f32", "[moe][layer]") {
  const LayerUnderTest under_test(moe_config("{num_experts: 4, train_capacity_factor: 4.0}"),
                                  expert_shape(16, 32));
  const Tensor x = random_tensor({2, 40, 16}, DType::bf16, 1, 2);
  ForwardContext context;
  context.is_training = true;
  context.compute = DType::bf16;
  const auto half = run(under_test, x, context);
  REQUIRE(half.y_BLD.dtype() == DType::bf16);
  REQUIRE(half.load_balance_loss.dtype() == DType::f32);
  const auto single = run(under_test, x.to(DType::f32), context);
  // The same f32 numbers: not a bit of routing depends on the activations' type.
  require_same_bits(half.load_balance_loss.value(), single.load_balance_loss.value());
  require_same_bits(half.router_z_loss.value(), single.router_z_loss.value());
  REQUIRE(statistics_of(half.tally).load_E == statistics_of(single.tally).load_E);
  // Two roundings of sums of 16 and 32 products of values up to 4.
  require_close(half.y_BLD.value(), single.y_BLD.value(), {0.1, 0.02});
}

struct Step {
  Tensor y;
  std::vector<Tensor> gradients;
};

Step train_step(const LayerUnderTest& under_test, const Tensor& x_value, bool is_recomputed) {
  ForwardContext context;
  context.is_training = true;
  context.compute = x_value.dtype();
  context.key = RandomKey{4};
  for (const Parameter& parameter : under_test.store.parameters()) parameter.value.clear_grad();
  const Var x = Var::leaf(x_value);
  auto block = [&](const std::vector<Var>& xs) {
    const auto output = under_test.layer.forward(xs[0], Tensor(), context);
    return std::vector<Var>{output.y_BLD, output.load_balance_loss, output.router_z_loss};
  };
  const auto outputs = is_recomputed ? recompute(block, {x}) : block({x});
  const Tensor one = Tensor::full({1}, DType::f32, 1.0);
  backward(outputs, {random_tensor(x.shape(), x.dtype(), 5), one, one});
  Step step{outputs[0].value(), {x.grad()}};
  for (const Parameter& parameter : under_test.store.parameters())
    step.gradients.push_back(parameter.value.grad().clone());
  return step;
}

void require_same_step(const Step& actual, const Step& expected) {
  require_same_bits(actual.y, expected.y);
  REQUIRE(actual.gradients.size() == expected.gradients.size());
  for (size_t i = 0; i < actual.gradients.size(); ++i)
    require_same_bits(actual.gradients[i], expected.gradients[i]);
}

TEST_CASE("one thread, two threads and recomputation give the same bits", "[moe][layer]") {
  const int threads = num_threads();
  for (ExpertBias bias : {ExpertBias::none, ExpertBias::multiplicative, ExpertBias::additive}) {
    const LayerUnderTest under_test(
        moe_config(
            "{num_experts: 4, group_size: 300, expert_dropout: 0.1, train_capacity_factor: 1.0, "
            "router: {kind: top_k, k: 2, jitter: 0.01}}"),
        expert_shape(24, 40, Activation::relu, bias));
    for (DType dtype : {DType::f32, DType::bf16}) {
      const Tensor x = random_tensor({6, 100, 24}, dtype, 1);
      set_num_threads(1);
      const Step one = train_step(under_test, x, false);
      set_num_threads(2);
      require_same_step(train_step(under_test, x, false), one);
      require_same_step(train_step(under_test, x, true), one);
    }
  }
  set_num_threads(threads);
}

TEST_CASE("an expert bias as it starts changes nothing", "[moe][layer]") {
  const Tensor x = random_tensor({2, 30, 6}, DType::f32, 1, 2);
  const std::string yaml = "{num_experts: 3, expert_dropout: 0.2, train_capacity_factor: 1.0}";
  std::vector<Tensor> results;
  for (ExpertBias bias : {ExpertBias::none, ExpertBias::multiplicative, ExpertBias::additive}) {
    const LayerUnderTest under_test(moe_config(yaml), expert_shape(6, 16, Activation::geglu, bias));
    results.push_back(train_step(under_test, x, false).y);
    require_close(results.back(), values_of(results.front()), Tolerance::exact());
  }
}

TEST_CASE("a layer's weights carry their checkpoint names", "[moe][layer]") {
  const LayerUnderTest relu_layer(moe_config("{num_experts: 3}"), expert_shape(4, 6));
  std::vector<std::string> found;
  for (const ParameterShape& shape : relu_layer.store.shapes())
    found.push_back(format("{} {} {}", shape.name, shape.shape.text(), shape.stacked_dims));
  REQUIRE(found == std::vector<std::string>{"moe/router/kernel [4, 3] 0",
                                            "moe/experts/wi/kernel [3, 4, 6] 1",
                                            "moe/experts/wo/kernel [3, 6, 4] 1"});
  const LayerUnderTest geglu_layer(moe_config("{num_experts: 3}"),
                                   expert_shape(4, 6, Activation::geglu));
  REQUIRE(geglu_layer.store.shapes().size() == 4);
  REQUIRE(geglu_layer.weight("experts/wi_1/kernel").shape() == Shape{3, 4, 6});
  for (auto [bias, start] :
       {std::pair{ExpertBias::multiplicative, 1.0}, std::pair{ExpertBias::additive, 0.0}}) {
    const LayerUnderTest biased(moe_config("{num_experts: 3}"),
                                expert_shape(4, 6, Activation::relu, bias));
    const ParameterShape& last = biased.store.shapes().back();
    REQUIRE(last.name == "moe/experts/bias");
    REQUIRE(last.shape == Shape{3, 6});
    REQUIRE(last.stacked_dims == 1);
    require_close(biased.weight("experts/bias").value(), std::vector<double>(18, start),
                  Tolerance::exact());
  }
  REQUIRE(experts_per_token(moe_config("{router: {kind: top_k, k: 2}}"), StackKind::encoder) == 2);
}

}  // namespace
}  // namespace stmoe::test
