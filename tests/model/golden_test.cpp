// SPDX-License-Identifier: Apache-2.0
// Whole models against Hugging Face transformers (scripts/golden/models.py names the version):
// logits and losses within 1e-5, the gradient of every parameter within 1e-4 of its norm, the
// experts chosen, greedy decoding.
#include "tests/model/golden.h"

#include <cmath>

#include <catch2/catch.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/cpu_level.h"
#include "lib/model/decoder_state.h"
#include "lib/ops/add.h"

namespace stmoe {
namespace {

using test::Golden;

// |actual - expected| / |expected| in the Euclidean norm over the whole tensor.
double relative_error(const Tensor& actual, const Tensor& expected) {
  STMOE_CHECK(actual.shape() == expected.shape());
  const Tensor a = actual.contiguous().to(DType::f64), e = expected.to(DType::f64);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.span<double>().size(); ++i) {
    const double x = a.span<double>()[i], y = e.span<double>()[i];
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(difference / norm);
}

struct GoldenErrors {
  double logits = 0, loss = 0, gradient = 0, attention_z_loss = 0;
  std::string worst_gradient;
};

GoldenErrors run(const Golden& golden, const char* loss_name) {
  GoldenErrors errors;
  const ModelOutputs outputs = golden.forward();
  errors.logits = test::largest_difference(outputs.logits_BTV.value(), golden.read("logits"));
  const CrossEntropy loss = test::loss_of(outputs.logits_BTV, golden.read("targets"));
  errors.loss = std::abs(test::mean_loss(loss) - golden.read(loss_name).item());
  std::vector<Var> terms = {loss.total};
  std::vector<double> coefficients = {1.0 / static_cast<double>(loss.read().num_targets)};
  if (outputs.attention_z_loss.defined()) {
    terms.push_back(outputs.attention_z_loss);
    coefficients.push_back(golden.config().model.attention_z_loss);
    errors.attention_z_loss =
        std::abs(outputs.attention_z_loss.value().item() - golden.read("attention_z_loss").item());
  }
  backward(weighted_sum(terms, coefficients));
  for (const Parameter& parameter : golden.parameters()) {
    REQUIRE(parameter.value.grad().defined());
    const double error =
        relative_error(parameter.value.grad(), golden.read("gradients/" + parameter.name));
    if (error >= errors.gradient) {
      errors.gradient = error;
      errors.worst_gradient = parameter.name;
    }
  }
  return errors;
}

const std::vector<std::string> kNames = {
    "t5_relu",      "t5_geglu",           "t5_gelu", "t5_long",        "switch",
    "switch_extra", "switch_extra_first", "st_moe",  "t5_attention_z", "switch_attention"};

}  // namespace

TEST_CASE("a model has exactly the parameters of the Hugging Face model", "[model][golden]") {
  for (const std::string& name : kNames) {
    const Golden golden(name, DType::f32);
    std::vector<std::string> ours;
    for (const Parameter& parameter : golden.parameters()) ours.push_back(parameter.name);
    std::ranges::sort(ours);
    INFO(name);
    CHECK(ours == golden.parameter_names());
  }
}

TEST_CASE("logits, loss and gradients in f32 agree with Hugging Face", "[model][golden]") {
  for (const std::string& name : kNames) {
    for (const std::string recompute : {"none", "block"}) {
      const GoldenErrors errors = run(Golden(name, DType::f32, recompute), "loss");
      INFO(format("{}: logits {:.2e}, loss {:.2e}, gradients {:.2e} ({})", name, errors.logits,
                  errors.loss, errors.gradient, errors.worst_gradient));
      // Without fused multiply-adds every product of a sum is rounded too.
      CHECK(errors.logits <= (cpu_level() == CpuLevel::portable ? 2e-5 : 1e-5));
      CHECK(errors.loss <= 1e-5);
      CHECK(errors.gradient <= 1e-4);
      CHECK(errors.attention_z_loss <= 1e-5);
    }
  }
}

TEST_CASE("the loss in f64 agrees with Hugging Face run in f64", "[model][golden]") {
  for (const std::string& name : kNames) {
    const Golden golden(name, DType::f64);
    const CrossEntropy loss = test::loss_of(golden.forward().logits_BTV, golden.read("targets"));
    INFO(name);
    CHECK(std::abs(test::mean_loss(loss) - golden.read("loss_f64").item()) < 1e-9);
  }
}

TEST_CASE("the encoder's output agrees with Hugging Face at real tokens", "[model][golden]") {
  for (const std::string& name : kNames) {
    const Golden golden(name, DType::f32);
    const Tensor actual = golden.forward().encoder_BLD.value(),
                 expected = golden.read("encoder_output");
    const Tensor tokens = golden.read("encoder_tokens");
    double largest = 0;
    for (int64_t n = 0; n < tokens.numel(); ++n) {
      if (tokens.span<int32_t>()[static_cast<size_t>(n)] == 0) continue;
      const Tensor a = actual.reshape({-1, actual.dim(2)}).slice(0, n, n + 1);
      const Tensor e = expected.reshape({-1, actual.dim(2)}).slice(0, n, n + 1);
      largest = std::max(largest, test::largest_difference(a, e));
    }
    INFO(name);
    CHECK(largest < 1e-5);
  }
}

TEST_CASE("every row's tokens go to the experts that Hugging Face chose", "[model][golden][moe]") {
  const Golden golden("switch", DType::f32);
  const Tensor tokens = golden.read("encoder_tokens"), inputs = golden.read("decoder_inputs");
  for (int64_t b = 0; b < tokens.dim(0); ++b) {
    const ModelOutputs outputs = golden.model().forward(
        {tokens.slice(0, b, b + 1), Tensor(), inputs.slice(0, b, b + 1), Tensor()}, {});
    REQUIRE(outputs.routing.size() == 4);
    for (const LayerTally& layer : outputs.routing) {
      const Tensor expert =
          golden.read("router/" + layer.name + "/expert").reshape({tokens.dim(0), -1});
      std::vector<double> expected(4, 0.0);
      for (int32_t chosen : expert.slice(0, b, b + 1).span<int32_t>())
        expected[static_cast<size_t>(chosen)] += 1.0;
      INFO(layer.name);
      for (size_t e = 0; e < 4; ++e)
        CHECK(std::lround(statistics_of(layer.tally).load_E[e] *
                          static_cast<double>(expert.dim(1))) == std::lround(expected[e]));
      CHECK(statistics_of(layer.tally).dropped_fraction == 0);
    }
  }
}

TEST_CASE("greedy decoding with a cache gives Hugging Face's tokens", "[model][golden][decode]") {
  for (const std::string& name : kNames) {
    const Golden golden(name, DType::f32);
    const Tensor expected = golden.read("generated"), tokens = golden.read("generation_tokens");
    const int64_t batch = expected.dim(0), steps = expected.dim(1);
    DecoderState state(golden.model(), tokens, steps, DType::f32);
    std::vector<int32_t> inputs(static_cast<size_t>(batch), 0);
    std::vector<bool> ended(static_cast<size_t>(batch), false);
    INFO(name);
    for (int64_t step = 0; step < steps; ++step) {
      const Tensor logits = state.step(Tensor::from({batch}, inputs));
      for (int64_t b = 0; b < batch; ++b) {
        const size_t row = static_cast<size_t>(b);
        const auto scores = logits.slice(0, b, b + 1).span<float>();
        const auto best = static_cast<int32_t>(std::ranges::max_element(scores) - scores.begin());
        inputs[row] = ended[row] ? 0 : best;
        ended[row] = ended[row] || best == 1;
        CHECK(inputs[row] == expected.span<int32_t>()[static_cast<size_t>(b * steps + step)]);
      }
    }
  }
}

}  // namespace stmoe
